"""Groups of options that arrive in a command as one frozen value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def grouped(name: str, value: Callable[..., Any], options: Mapping[str, Decorator]) -> Decorator:
    """Return a decorator that adds options to a command, which gets them as one value in its argument `name`.

    options: field of the value → the option that sets it, in the order of the help page.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_value(**given: Any) -> Any:
            own = {field: given.pop(field) for field in options}
            return command(**given, **{name: value(**own)})

        for option in reversed(list(options.values())):
            option(with_value)
        return with_value

    return decorate


def offered(value: Any) -> dict[str, Any]:
    """Return the fields of a value that are not None: those that a command offers and that have a value."""
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: setting for name, setting in named.items() if setting is not None}
