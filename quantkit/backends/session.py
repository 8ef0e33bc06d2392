"""The seam between quantkit and what runs an ONNX network on this machine.

    Backend    a library that opens networks: its name, its providers, its version
    Session    an open network that shows `tensors`
    Runner     the session in the hands of one thread: feeds in, tensors out

A backend is a folder beside this file whose package has a `BACKEND`; nothing else lists the backends. The packages load
no library before a session is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypedDict

from quantkit.errors import UsageError
from quantkit.plugin import import_files
from quantkit.values import Array, Batch

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.gpu_counting.resident import ResidentRunner
    from quantkit.graph.model import Model

DEFAULT_BACKEND = "onnxruntime"
DEFAULT_PROVIDER = "cpu"
AUTO = "auto"
TENSORRT = "tensorrt"
"""The backend that calibrates with TensorRT's own calibrators, and opens no sessions."""


class Runner(Protocol):
    """A network opened for running by one thread."""

    def __call__(self, feeds: Batch, /) -> Mapping[str, Array]:
        """Run once: feeds in, every watched tensor out. The arrays are valid until the next call. ModelError."""


class Session(Protocol):
    """A network opened for watching `tensors`; each thread takes its own runner. notes: what the user should know."""

    tensors: tuple[str, ...]
    notes: tuple[str, ...]

    def runner(self) -> Runner:
        """Return a new runner for one thread."""

    def resident(self) -> ResidentRunner | None:
        """Return a new runner for one thread that leaves its tensors on the device; None where there is none.
        BackendError."""


class SessionFields(TypedDict, total=False):
    """The keywords that a session is opened with."""

    provider: str
    """One of the backend's. Default: its first."""
    threads: int
    """Threads of one run; 0 leaves it to the library. Default: 1."""
    fixed_shapes: bool
    """Whether shapes follow from those of the inputs, so that buffers can stay. Default: False."""
    any_type: bool
    """Watch tensors that are not float, too. Default: they are left out of the session's `tensors`."""
    once: bool
    """Run once: weights are used as they lie in their file, not copied into an order that is faster. Default: False."""


class SessionOpener(Protocol):
    """A function that opens a network; `open_session` and the method of every backend are such functions."""

    def __call__(self, model: Model, tensors: Sequence[str], **options: Unpack[SessionFields]) -> Session:
        """Open `model` with `tensors` watched. ModelError, BackendError."""


class Backend(Protocol):
    """A library that runs ONNX networks."""

    @property
    def name(self) -> str:
        """The name that `--backend` takes, which is that of the folder."""

    @property
    def providers(self) -> tuple[str, ...]:
        """The values of `--provider`, the default first: where the library can run a network."""

    def available(self) -> tuple[str, ...]:
        """Return the providers that can be used here; none where the library is not installed."""

    def version(self) -> str:
        """Return the version of the library. BackendError where it is not installed."""

    @property
    def open_session(self) -> SessionOpener:
        """Open a network."""


@cache
def session_backends() -> Mapping[str, Backend]:
    """Return the backends by name: the `BACKEND` of each package of this folder that has one."""
    packages = import_files(__package__, packages=True)
    found: list[Backend] = [package.BACKEND for package in packages if hasattr(package, "BACKEND")]
    return {backend.name: backend for backend in found}


def backend_names() -> tuple[str, ...]:
    """Return the values of `--backend`: those that open sessions, TensorRT's calibrators, and the automatic choice."""
    return (AUTO, *session_backends(), TENSORRT)


def default_backend() -> Backend:
    """Return the backend that runs networks where nobody asks for another."""
    return session_backends()[DEFAULT_BACKEND]


def backend_named(name: str) -> Backend:
    """Return a backend. UsageError where there is none of that name."""
    backends = session_backends()
    if name not in backends:
        raise UsageError(f"unknown backend {name!r}", remedy=f"use one of {', '.join(backends)}")
    return backends[name]


def check_provider(provider: str, backend: str = DEFAULT_BACKEND) -> None:
    """Raise UsageError where a backend has no provider of that name."""
    known = backend_named(backend).providers
    name, colon, index = provider.partition(":")
    if name not in known or (colon and (name == "cpu" or not index.isdecimal())):
        gpu = ", or cuda:1 for the second GPU" if "cuda" in known else ""
        raise UsageError(f"unknown provider {provider!r}", remedy=f"use one of {', '.join(known)}{gpu}")


def split_provider(provider: str) -> tuple[str, int]:
    """Return the name of a provider and the number of its GPU: `cuda:1` is the second one, `cuda` the first."""
    name, _, index = provider.partition(":")
    return name, int(index or 0)


def backend_label(backend: Backend, provider: str) -> str:
    """Return library, version and provider as records keep them, for example `onnxruntime 1.32.0 cpu`.

    Which of the GPUs it was is not kept.
    """
    return f"{backend.name} {backend.version()} {split_provider(provider)[0]}"


def open_session(model: Model, tensors: Sequence[str], **options: Unpack[SessionFields]) -> Session:
    """Open a network on the default backend; see `SessionFields`. ModelError, BackendError."""
    return default_backend().open_session(model, tensors, **options)


def usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class FakeSession:
    """A double for tests: a function from feeds to tensors takes the place of the network; needs no file and no GPU."""

    def __init__(self, function: Callable[[Batch], Mapping[str, Array]], tensors: Sequence[str]) -> None:
        self.tensors, self.notes = tuple(tensors), ()
        self._function = function

    def runner(self) -> Runner:
        """Return the function itself."""
        return self._function

    def resident(self) -> None:
        """Return None: its tensors are arrays."""
