"""The stand-ins are called as the real classes are, in each version."""

from __future__ import annotations

import inspect
import re

import checked
import pytest
from checked import real as trt

STAND_INS = [kind for kind in vars(checked).values() if inspect.isclass(kind) and issubclass(kind, checked.Checked)]
METHODS = [
    (kind, name)
    for kind in STAND_INS
    if kind is not checked.Checked
    for name, value in vars(kind).items()
    if inspect.isfunction(value) and not name.startswith("_") and hasattr(getattr(trt, kind.__name__), name)
]


def parameters(signature: str) -> list[str]:
    """`f(self: X, a: Sequence[int], b: int = 0) -> Y` → `["a", "b"]`."""
    depth, names = 0, []
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    for part in re.split(r"([\[\](),<>])", f",{inside}"):
        depth += part in ("[", "(", "<")
        depth -= part in ("]", ")", ">")
        if depth == 0 and (found := re.match(r"\s*(\w+):", part)):
            names.append(found[1])
    return names[1:]


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_parameters(kind: type, name: str) -> None:
    text = getattr(getattr(trt, kind.__name__), name).__doc__
    overloads = [parameters(line) for line in re.findall(rf"{name}\(self: .*\) -> .*", text)]
    ours = list(inspect.signature(getattr(kind, name)).parameters)[1:]
    assert any(ours == theirs[: len(ours)] for theirs in overloads), overloads
