"""Standard output as one document: with --json or --markdown, whatever else is printed there goes to standard error.

The user's own code (`module:callable`) and libraries print too: while they are imported, from C++, from programs that
they start. Where standard output is a file descriptor, that descriptor is therefore exchanged, for the whole process.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TextIO

DOCUMENT = frozenset({"--json", "--markdown"})
NO_DOCUMENT = frozenset({"-h", "--help", "--version"})
"""Options whose text is what the user asked for."""
RESERVED: ContextVar[TextIO | None] = ContextVar("stream of the document", default=None)


def asks_for_document(arguments: list[str]) -> bool:
    """Return True if a command line asks for JSON or Markdown."""
    return bool(DOCUMENT & set(arguments)) and not NO_DOCUMENT & set(arguments)


def document_stream() -> TextIO:
    """Return the stream of documents."""
    return RESERVED.get() or sys.stdout


def reserve_standard_output() -> None:
    """Keep the process's standard output for documents; everything else that is written to it goes to standard error.

    It stays so until the process ends, because threads of the user's code may outlive the command.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper) or not isinstance(sys.stderr, io.TextIOWrapper):
        return
    try:
        descriptor, target = sys.stdout.fileno(), sys.stderr.fileno()
        sys.stdout.flush()
        kept = os.dup(descriptor)
        os.dup2(target, descriptor)
    except OSError:
        return  # one of them is no descriptor, or is closed: `documents_only` redirects what Python prints
    sys.stdout.reconfigure(line_buffering=True)
    RESERVED.set(open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors))  # noqa: SIM115 (stays open)


@contextlib.contextmanager
def documents_only(arguments: list[str]) -> Iterator[None]:
    """Send what Python prints to standard error, if a command line asks for a document and nothing did so before."""
    if not asks_for_document(arguments) or RESERVED.get() is not None:
        yield
        return
    token = RESERVED.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        RESERVED.reset(token)
