"""The options of a verb as keyword arguments: `quantkit.calibrate(model, data, limit=10, force=True)`.

    CalibrateOptions(limit of data, force, …)   the value that a verb works with
    CalibrateFields                             the same names for type checkers, as a TypedDict
    @takes_fields(CalibrateOptions)             makes the value from the keywords

A keyword is a field of the options value, or of the `DataOptions` inside it (`limit`, `batch_size`, …). Beside
`options=`, keywords replace its fields.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields, replace
from functools import wraps
from typing import Any, TypeVar

Verb = TypeVar("Verb", bound=Callable[..., Any])

NESTED = "data"
"""The field of an options value that holds how samples are read."""
INTERNAL = frozenset({"whole", "part"})
"""Fields of `DataOptions` that verbs set themselves."""
TWINS = {"rule": "rules", "rules": "rule", "metric": "metrics"}
"""Keywords that verbs take under either name: the command line has `--rule` and `--metric` for one and for several."""
SYNONYMS = {
    "batch": "batch_size",
    "batchsize": "batch_size",
    "images": "data",
    "method": "rule",
    "num_samples": "limit",
    "overwrite": "force",
    "samples": "limit",
}
"""Names that other tools use, for the suggestion in a TypeError."""


def takes_fields(kind: type[Any] | None = None, reading: type[Any] | None = None) -> Callable[[Verb], Verb]:
    """Return a decorator: the verb takes the fields of its options as keywords.

    kind: of the verb's `options`; None for a verb without. reading: of its field `data`, if it has one. The verb
    declares `**_` for type checkers, and receives the options alone. Its signature, which `help` and completions show,
    has every keyword.
    """
    ordered = sorted(fields(kind), key=lambda field: bool(field.kw_only)) if kind else ()  # what verbs share, last
    own = {field.name: field for field in ordered if reading is None or field.name != NESTED}
    nested = {} if reading is None else {f.name: f for f in fields(reading) if f.name not in INTERNAL}

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        declared = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {parameter.name for parameter in declared}
        known = {name: field for name, field in {**own, **nested}.items() if name not in taken}

        @wraps(verb)
        def call(*arguments: Any, **keywords: Any) -> Any:
            keywords = {settled_name(name, keywords, taken | known.keys()): value for name, value in keywords.items()}
            given = {name: keywords.pop(name) for name in known.keys() & keywords.keys()}
            if unknown := next((name for name in keywords if name not in taken), None):
                raise TypeError(unknown_keyword(verb.__name__, unknown, [*taken, *known]))
            if given and kind:
                keywords["options"] = with_fields(keywords.get("options"), kind, own, given)
            return verb(*arguments, **keywords)

        keywords = [keyword_parameter(field) for field in known.values()]
        call.__signature__ = signature.replace(parameters=[*declared, *keywords])  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def shows_keywords(names: Iterable[str]) -> Callable[[Verb], Verb]:
    """Return a decorator: `help` and completions show these keywords of a verb that takes them as `**keywords`."""

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        declared = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
        verb.__signature__ = signature.replace(parameters=[*declared, *more])  # type: ignore[attr-defined]
        return verb

    return decorate


def settled_name(name: str, given: Mapping[str, Any], known: Collection[str]) -> str:
    """Return a keyword, or its twin if the verb has only that. TypeError if both are given."""
    twin = TWINS.get(name)
    if name in known or twin not in known:
        return name
    if twin in given:
        raise TypeError(f"'{name}' and '{twin}' are the same argument; give one of them")
    return str(twin)


def with_fields(options: Any, kind: type[Any], own: Mapping[str, Field[Any]], given: Mapping[str, Any]) -> Any:
    """Return the options with other values for some fields. own: fields of the options; others are of its `data`.

    Options of another type are returned as they are, for the verb to refuse.
    """
    if options is None:
        options = kind()
    if not isinstance(options, kind):
        return options
    chosen = {name: as_declared(own[name], value) for name, value in given.items() if name in own}
    if inner := {name: value for name, value in given.items() if name not in own}:
        chosen[NESTED] = replace(getattr(options, NESTED), **inner)
    return replace(options, **chosen)


def as_declared(field: Field[Any], value: Any) -> Any:
    """Return a value for a field; a single text or a list for a field that holds a tuple becomes one."""
    if not str(field.type).startswith("tuple") or value is None:
        return value
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def unknown_keyword(verb: str, name: str, known: Iterable[str]) -> str:
    """Return the message of a TypeError, in Python's words, with the keyword that was probably meant."""
    names = sorted(known)
    near = SYNONYMS.get(name.lower())
    if near not in names:
        near = next(iter(difflib.get_close_matches(name.lower(), names, 1)), None)
    advice = f"did you mean '{near}'?" if near else f"it takes {', '.join(names)}"
    return f"{verb}() got an unexpected keyword argument '{name}'; {advice}"


def keyword_parameter(field: Field[Any]) -> inspect.Parameter:
    """Return a field as a parameter of a signature, with its default."""
    default = field.default
    if default is MISSING:
        default = inspect.Parameter.empty if field.default_factory is MISSING else field.default_factory()
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
