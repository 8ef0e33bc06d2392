"""Commands with a summary for lists of commands, and with examples at the end of their help page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from quantkit.cli.arguments.completion import add_completion


class Verb(click.Command):
    """A command with examples: whole command lines that can be copied."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)
        for parameter in self.params:
            add_completion(parameter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def verb(
    summary: str, *examples: str, name: str | None = None, group: click.Group | None = None
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return the decorator that makes a function a command.

    summary: for the list of commands, a line of at most 60 characters. examples: command lines, at least two. group:
    the group that it belongs to; None where it belongs to the program itself.
    """
    make = click.command if group is None else group.command
    return make(name, cls=Verb, short_help=summary, examples=examples)


class VerbGroup(click.Group):
    """A group whose help page shows its commands in their own order, with whole summaries, under headings.

    headings: title → the names of commands; the others come last, under `Commands`.
    """

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.headings = dict(headings or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the order of the headings, then in the order in which they were added."""
        del ctx
        return list(dict.fromkeys((*(name for names in self.headings.values() for name in names), *self.commands)))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        names = self.list_commands(ctx)
        width = max(map(len, names), default=0)
        named = {name for names_below in self.headings.values() for name in names_below}
        for title, below in (*self.headings.items(), ("Commands", [name for name in names if name not in named])):
            if below:
                with formatter.section(title):
                    rows = [(f"{name:<{width}}", self.commands[name].get_short_help_str(limit=200)) for name in below]
                    formatter.write_dl(rows)
