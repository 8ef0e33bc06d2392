"""The layers of an engine of many branches, led back to the branch and the step whose nodes they run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NODE = re.compile(r"\bb(\d+)\.(?:o(\d+)\.)?([a-z]+)\d+")
"""Names as `BranchWriter` gives them: `b3.o1.conv4`, and `b3.in0` of tensors."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """A layer, and its time. milliseconds: median of the runs; spread: half the distance of the quartiles.

    branch, step: where its nodes come from; None where several branches are in one layer. words: its operators.
    """

    name: str
    milliseconds: float
    spread: float
    precision: str
    branch: int | None
    step: int | None
    words: tuple[str, ...]
    formats: str = ""

    def document(self) -> list[object]:
        """Return it as a compact row."""
        words = "+".join(self.words)
        return [self.branch, self.step, words, self.precision, round(self.milliseconds, 5), round(self.spread, 5),
                self.formats]  # fmt: skip


def place_of(texts: Iterable[str]) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Return the branch, the first step, and the operators that a layer's name and metadata mention."""
    found = [match for text in texts for match in NODE.finditer(text)]
    branches = {int(match[1]) for match in found}
    steps = sorted({int(match[2]) for match in found if match[2]})
    words = tuple(dict.fromkeys(match[3] for match in found if match[2] and match[3] != "k"))
    if len(branches) != 1:
        return None, None, words
    return branches.pop(), steps[0] if steps else None, words


def layer_times(
    document: Mapping[str, Any], times: Mapping[str, Sequence[float]], precisions: Mapping[str, str]
) -> list[LayerTime]:
    """Return every timed layer. document: of the engine inspector; times: layer → milliseconds of each run."""
    entries = {str(e["Name"]): e for e in document.get("Layers", ()) if isinstance(e, Mapping) and "Name" in e}
    made = []
    for name, runs in times.items():
        entry: Mapping[str, Any] = entries.get(name, {})
        copies = name.startswith("Reformatting CopyNode")
        branch, step, words = place_of([name] if copies else [name, str(entry.get("Metadata", ""))])
        low, middle, high = quartiles(runs)
        made.append(
            LayerTime(
                name,
                middle,
                (high - low) / 2,
                precisions.get(name, "unknown"),
                branch,
                step,
                ("reformat",) if copies else words,
                tensor_formats(entry),
            )
        )
    return made


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[last // 4], ordered[last // 2], ordered[last - last // 4]


def tensor_formats(entry: Mapping[str, Any]) -> str:
    """Return the formats of a layer's tensors: `Int8 NC/32HW32 > FP16 …`."""
    sides = []
    for side in ("Inputs", "Outputs"):
        tensors = [t for t in entry.get(side, ()) if isinstance(t, Mapping)]
        sides.append(", ".join(str(t.get("Format/Datatype", t.get("DataType", "?"))) for t in tensors))
    return " > ".join(sides)
