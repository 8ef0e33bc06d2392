"""Options that are given on the command line and would change nothing: they are refused rather than ignored."""

from __future__ import annotations

from collections.abc import Mapping

import click
from click.core import ParameterSource

from quantkit.errors import UsageError


def is_given(name: str) -> bool:
    """Return True if a parameter of the running command was given on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse_unused(reasons: Mapping[str, str]) -> None:
    """Raise UsageError if an option is given that would change nothing.

    reasons: parameter → why it has no effect.
    """
    for name, why in reasons.items():
        if is_given(name):
            raise UsageError(f"--{name.replace('_', '-')} has no effect: {why}", remedy="leave it out")
