"""Code found by name: the user's own (`module:callable`: batches, metrics), and the files of a package of quantkit.

Whatever calls code of the user does it in `running_user_code`: what the code changes in the process stays its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from quantkit.errors import QuantkitError, UsageError
from quantkit.view import shorten_middle

USER_ERRORS = (Exception, SystemExit)
"""What code of the user may raise: everything but an interruption."""
LONGEST = 300
"""Characters of a text or a line of the user's code."""
MOST_FRAMES = 6
"""Calls in the user's code that an error lists."""
DIRECTORIES: dict[str, str] = {}
"""Where the user's code works, by the working directory of the command, if the code has changed to another one."""


@contextlib.contextmanager
def running_user_code() -> Iterator[None]:
    """Run code of the user, which may raise one of USER_ERRORS or KeyboardInterrupt, and nothing else.

    The code finds the working directory that it has changed to, and the caller its own one, with the same standard
    streams: paths that were given to a command mean what they meant. A process that the code has forked ends here.
    """
    process, streams, ours, code = os.getpid(), (sys.stdout, sys.stderr), working_directory(), 1
    change_directory(DIRECTORIES.get(ours, ours))
    try:
        yield
        if any(getattr(stream, "closed", False) for stream in streams):
            raise ValueError("it closed a standard stream")
        code = 0
    except (KeyboardInterrupt, *USER_ERRORS):
        raise
    except BaseException as error:  # asyncio.CancelledError, GeneratorExit, a class of the user's
        text = f"{type(error).__name__}: {error}"
        raise RuntimeError(text).with_traceback(error.__traceback__) from error
    finally:
        if os.getpid() != process:
            os._exit(code)
        theirs = working_directory()
        if theirs != ours:
            change_directory(ours)
            DIRECTORIES[ours] = theirs
        else:
            DIRECTORIES.pop(ours, None)
        sys.stdout, sys.stderr = streams


def working_directory() -> str:
    """Return the working directory; an empty text if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def change_directory(path: str) -> None:
    """Change the working directory, unless `path` is empty or was removed."""
    if path and path != working_directory():
        with contextlib.suppress(OSError):
            os.chdir(path)


def load_plugin(text: str, *, option: str, remedies: tuple[str, str], fits: Callable[[Any], bool] = callable) -> Any:
    """Import `module:callable`, also from the working directory; `fits` accepts the object.

    UsageError begins with `option`; its remedy is the first of `remedies` if the module is missing, the second if the
    module has no such callable. It names the line if the import of the module fails.
    """
    module_name, _, attribute = text.partition(":")
    if not module_name or module_name.startswith(".") or not text.isprintable():
        raise UsageError(f"{option} {text}: not the name of a module and of a callable in it", remedy=remedies[1])
    sys.path.insert(0, "")
    try:
        with running_user_code():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise import_failure(option, text, module_name, error) from error
        raise UsageError(f"{option} {text}: there is no module {module_name!r}", remedy=remedies[0]) from None
    except USER_ERRORS as error:
        raise import_failure(option, text, module_name, error) from error
    finally:
        if "" in sys.path:  # the module may have changed it
            sys.path.remove("")
    try:
        with running_user_code():
            found = getattr(module, attribute, None)
            suits = fits(found)
    except USER_ERRORS as error:
        raise import_failure(option, text, module_name, error) from error
    if not suits:
        raise UsageError(f"{option} {text}: {module_name} has no callable {attribute!r}", remedy=remedies[1])
    return found


def call_factory(factory: Callable[[], Any], option: str, text: str, remedy: str) -> Any:
    """Return what a function or a class of the user's returns without arguments. UsageError."""
    try:
        with running_user_code():
            return factory()
    except QuantkitError:
        raise
    except USER_ERRORS as error:
        raise UsageError(
            f"{option} {text}: calling it without arguments failed: {describe_error(error)}",
            details=user_frames(error),
            remedy=remedy,
        ) from error


def import_failure(option: str, text: str, module: str, error: BaseException) -> UsageError:
    """Return the error for a module of the user that raises while it is imported."""
    return UsageError(
        f"{option} {text}: {module} cannot be imported: {describe_error(error)}",
        details=user_frames(error),
        remedy=f"fix the import; reproduce it with: python -c 'import {module}'",
    )


def describe_error(error: BaseException) -> str:
    """Return an error of the user's code in one line: type, first line of its text, and the line of code, if any."""
    try:
        first = shorten_middle((str(error).strip().splitlines() or [""])[0], LONGEST)
    except USER_ERRORS:  # its text is the user's own code, too
        first = ""
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    own = user_stack(error)
    if isinstance(error, SyntaxError) or not own:
        return text  # the text of a SyntaxError names file and line
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})"


def user_frames(error: BaseException) -> list[str]:
    """Return the calls in the user's code that led to an error, outermost first: file, line, function and code.

    None if it was one call: `describe_error` names its line.
    """
    own = [frame for frame in user_stack(error) if frame.name != "<module>"]
    shown = [*own[:1], *own[-(MOST_FRAMES - 1) :]] if len(own) > MOST_FRAMES else own
    return [
        f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: "
        f"{shorten_middle((frame.line or '').strip(), LONGEST)}"
        for frame in (shown if len(shown) > 1 else ())
    ]


def user_stack(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an error's traceback that are in the user's code."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_code(frame.filename)]


def is_user_code(file: str) -> bool:
    """Return True if code is the user's, and not quantkit's or a library's."""
    path = Path(file)
    ours, libraries = Path(__file__).parent, Path(sysconfig.get_paths()["stdlib"])
    return os.path.exists(path) and not {ours, libraries} & set(path.parents) and "site-packages" not in path.parts


def import_files(package: str, *, packages: bool = False) -> Iterator[ModuleType]:
    """Import the modules of a package, or only the packages in it, in alphabetical order."""
    folder = importlib.import_module(package)
    for found in pkgutil.iter_modules(folder.__path__, f"{package}."):
        if found.ispkg or not packages:
            yield importlib.import_module(found.name)
