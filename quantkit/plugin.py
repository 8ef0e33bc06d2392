"""Code of the user's own, named as `module:callable`: batches, metrics."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from quantkit.errors import UsageError


def load_plugin(text: str, *, option: str, remedies: tuple[str, str]) -> Callable[..., Any]:
    """`module:callable` → the callable; modules in the working directory are found.

    UsageError begins with `option`; its remedy is the first of `remedies` where the module is missing, the second where
    the module has no such callable. What the module itself misses is raised as it is.
    """
    module_name, _, attribute = text.partition(":")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise
        raise UsageError(f"{option} {text}: there is no module {module_name!r}", remedy=remedies[0]) from None
    finally:
        sys.path.remove("")
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UsageError(f"{option} {text}: {module_name} has no callable {attribute!r}", remedy=remedies[1])
    plugin: Callable[..., Any] = found
    return plugin
