"""Compilation in a process of its own, with limits of time and memory: the compiler may crash, and never with us.

TensorRT-RTX is a parser and compiler of the TensorRT 11 generation, and not TensorRT itself: what it refuses, TensorRT
11 probably refuses too; how fast the kernels are, shows on the GPU alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.backends.tensorrt_rtx import child
from quantkit.backends.tensorrt_rtx.architectures import DEFAULT_ARCHITECTURES, check_architectures
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.kernel_log import kernels_in, memory_in
from quantkit.backends.tensorrt_rtx.refusals import Refusal, refusal_of
from quantkit.errors import BackendError, ModelError
from quantkit.extras import install_command
from quantkit.graph.model import IN_MEMORY, node_name
from quantkit.graph.save import write_model
from quantkit.paths import is_file
from quantkit.regular_file import UNBOUNDED, read_regular, read_regular_text
from quantkit.view import quoted

if TYPE_CHECKING:
    import onnx

    from quantkit.graph.model import Model

GIB = 1 << 30
LOCAL = "model.onnx"
POLL = 0.1
STALLED = 60.0
"""Seconds without CPU time after which the compiler waits for something that never comes, as where memory ran out."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """Limits of one compilation. seconds: for all architectures. memory: address space of the process, in bytes."""

    seconds: float = 900.0
    memory: int = 32 * GIB


@dataclass(frozen=True, slots=True)
class Compilation:
    """The outcome of compiling a network: for each architecture a compiled network, or the reasons it refuses.

    version: TensorRT-RTX's. engines: architecture → the engine, where the caller keeps it.
    """

    version: str
    networks: tuple[CompiledNetwork, ...]
    refusals: tuple[Refusal, ...] = ()
    engines: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def compiler_version() -> str | None:
    """Return the version of TensorRT-RTX; None if it is not installed. Does not load it."""
    if find_spec("tensorrt_rtx") is None:
        return None
    for name in ("tensorrt-rtx-cu13", "tensorrt-rtx", "tensorrt-rtx-cu12"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown version"


def require_compiler() -> str:
    """Return the version of TensorRT-RTX. BackendError if it is not installed."""
    if (found := compiler_version()) is None:
        raise BackendError("TensorRT-RTX, which compiles, is not installed", remedy=install_command("rtx"))
    return found


def try_compile(
    model: Model,
    shapes: Shapes,
    *,
    architectures: Sequence[str] = DEFAULT_ARCHITECTURES,
    limits: CompileLimits = CompileLimits(),
    keep_engines: bool = False,
    stage: Callable[[str], None] = lambda _: None,
) -> Compilation:
    """Compile the file of a model for architectures, in a process of its own.

    shapes: of every input, without dynamic dimensions. stage: called with what the compiler does at the moment.
    A network that is refused is a result; BackendError where TensorRT-RTX is not installed, or exceeds a limit.
    """
    installed = require_compiler()
    check_architectures(architectures)
    with tempfile.TemporaryDirectory(prefix="quantkit-compile-") as name:
        folder = Path(name)
        request = {
            "model": parsable_path(model, folder),
            "shapes": {key: list(shape) for key, shape in shapes.items()},
            "architectures": list(architectures),
            "memory": limits.memory,
            "parent": os.getpid(),
        }
        (folder / child.REQUEST).write_text(json.dumps(request))
        ending = run_child(folder, installed, limits, stage)
        return read_outcome(folder, model, architectures, ending, keep_engines=keep_engines)


def parsable_path(model: Model, folder: Path) -> str:
    """Return a path of the model for the parser, which reads files whose names are UTF-8.

    A model in memory is written into the folder, which the compiler runs in, and others get links there.
    """
    path = os.path.abspath(model.path)
    if model.path == IN_MEMORY:
        write_model(model.proto, model.folder, folder / LOCAL)
    elif is_utf8(path):
        return path
    else:
        for number, file in enumerate(model.files):
            link = folder / (LOCAL if number == 0 else os.path.relpath(file, model.folder))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(file))
    return LOCAL


def is_utf8(path: str) -> bool:
    """Return True if a path consists of characters, and of no other bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def compile_network(model: Model, shapes: Shapes, *, architecture: str) -> CompiledNetwork:
    """Return the compiled network for one architecture. ModelError if it is refused; BackendError as `try_compile`."""
    made = try_compile(model, shapes, architectures=[architecture])
    refuse_refused(model, made)
    return made.networks[0]


def refuse_refused(model: Model, made: Compilation) -> None:
    """Raise ModelError if the compiler refused a network."""
    if not made.refusals:
        return
    first, *others = made.refusals
    raise ModelError(
        f"{model.path}: TensorRT-RTX refuses it for {first.architecture}: {first.place}: {first.problem}",
        remedy=first.remedy,
        details=tuple(dict.fromkeys(f"{other.place}: {other.problem}" for other in others))[:5],
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of the compiler's process: its version, exit code (None: stopped by us), end of its output, and limits.

    stalled: it was stopped because it computed nothing any more.
    """

    version: str
    code: int | None
    said: str
    limits: CompileLimits
    stalled: bool = False


def run_child(folder: Path, version: str, limits: CompileLimits, stage: Callable[[str], None]) -> Ending:
    """Run the compiler on a folder until it ends, exceeds its time, or computes nothing any more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with open(folder / "output", "w+b") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", child.__name__, str(folder)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            stalled = wait_for(process, limits.seconds, lambda: stage_of(folder), stage)
            code = process.poll()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said = output.read()[-4096:].decode("utf-8", "replace").strip()
    return Ending(version, code, said, limits, stalled)


def wait_for(
    process: subprocess.Popen[bytes], seconds: float, now_in: Callable[[], str], stage: Callable[[str], None]
) -> bool:
    """Wait until a process ends, for at most some seconds; return True if it has computed nothing for `STALLED`."""
    begun = moved = time.monotonic()
    ticks, shown = 0, ""
    while (now := time.monotonic()) - begun < seconds:
        try:
            process.wait(POLL)
        except subprocess.TimeoutExpired:
            if (text := now_in()) != shown:
                shown = text
                stage(text)
            found = cpu_ticks(process.pid)
            if found is None or found != ticks:
                ticks, moved = found or 0, now
            elif now - moved > STALLED:
                return True
        else:
            return False
    return False


def cpu_ticks(process: int) -> int | None:
    """Return the CPU time that a process has used, in ticks of the clock; None where the system does not tell."""
    try:
        fields = read_regular(f"/proc/{process}/stat").rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return None


def stage_of(folder: Path) -> str:
    """Return the stage that the compiler is in, or was in when it ended."""
    try:
        return read_regular_text(folder / child.STAGE)
    except FileNotFoundError:
        return "loading TensorRT-RTX"


def read_outcome(
    folder: Path, model: Model, architectures: Sequence[str], ending: Ending, *, keep_engines: bool
) -> Compilation:
    """Return what the compiler left in its folder. BackendError if it exceeded a limit, or did not load."""
    nodes = {node.output[0]: node_name(node) for node in model.proto.graph.node if node.output}
    networks: list[CompiledNetwork] = []
    refusals: list[Refusal] = []
    engines: dict[str, bytes] = {}
    for name in architectures:
        if is_file(folder / f"{name}.json"):
            networks.append(read_network(folder, name, nodes, model))
            if keep_engines:
                engines[name] = read_regular(folder / f"{name}.engine", UNBOUNDED)
        elif is_file(folder / f"{name}{child.ERRORS}"):
            errors = json.loads(read_regular(folder / f"{name}{child.ERRORS}"))
            refusals.extend(
                dict.fromkeys(refusal_of(named(fields, model.proto.graph.node), name, nodes) for fields in errors)
            )
        elif ending.code != 0:
            refusals.append(crash_of(folder, model, name, ending))
            break
    if not networks and not refusals:
        raise BackendError(f"{model.path}: TensorRT-RTX left no result", remedy=install_command("rtx"))
    return Compilation(ending.version, tuple(networks), tuple(refusals), engines)


def named(fields: Mapping[str, str], nodes: Sequence[onnx.NodeProto]) -> Mapping[str, str]:
    """Return an error of the parser with the name of its node, which the file may lack.

    nodes: of the network. The number of a node in a subgraph is its number there, so the operator must be the same.
    """
    place = int(fields["place"] or -1)
    if fields["node"] or not 0 <= place < len(nodes) or nodes[place].op_type != fields["operator"]:
        return fields
    return {**fields, "node": node_name(nodes[place])}


def read_network(folder: Path, architecture: str, nodes: Mapping[str, str], model: Model) -> CompiledNetwork:
    """Return the compiled network of one architecture. BackendError if its log has a form that is not known."""
    facts = json.loads(read_regular(folder / f"{architecture}.json"))
    request = json.loads(read_regular(folder / child.REQUEST))
    lines = read_regular(folder / f"{architecture}.log").decode("utf-8", "replace").split("\n")
    memory = memory_in(iter(lines))
    try:
        kernels = kernels_in(iter(lines), nodes)
    except BackendError:
        refuse_unreadable_names(model)
        raise
    return CompiledNetwork(
        architecture=architecture,
        version=read_regular_text(folder / child.VERSION),
        kernels=kernels,
        shapes={name: tuple(shape) for name, shape in request["shapes"].items()},
        seconds=facts["seconds"],
        engine_bytes=facts["bytes"],
        activation_bytes=memory.get("Activation"),
        weight_bytes=memory.get("Weights"),
    )


def refuse_unreadable_names(model: Model) -> None:
    """Raise BackendError if a name has what the compiler's log uses itself: line breaks and braces."""
    graph = model.proto.graph
    names = [*(value.name for value in graph.input), *(node_name(node) for node in graph.node)]
    names += [name for node in graph.node for name in node.output]
    odd = next((name for name in names if any(mark in name for mark in "\n{}")), None)
    if odd is not None:
        raise BackendError(
            f"{model.path}: {quoted(odd)} has a line break or braces, with which the compiler's log cannot be read",
            remedy="give it a plain name in the export",
        )


def crash_of(folder: Path, model: Model, architecture: str, ending: Ending) -> Refusal:
    """Return the refusal for a compiler that crashed. BackendError if it exceeded a limit, or did not load."""
    stage = stage_of(folder)
    if ending.stalled:
        raise BackendError(
            f"{model.path}: TensorRT-RTX stands still, {stage}: it does so where memory does not suffice",
            remedy="allow more: --memory 64G",
        )
    if ending.code is None:
        raise BackendError(
            f"{model.path}: TensorRT-RTX took more than {ending.limits.seconds:g} s, {stage}",
            remedy="allow more time: --time-limit SECONDS",
        )
    memory = f"{ending.limits.memory / GIB:.3g} GiB"
    if any(sign in ending.said for sign in ("bad_alloc", "MemoryError", "Cannot allocate memory")):
        raise BackendError(
            f"{model.path}: TensorRT-RTX needs more than the {memory} that it may use, {stage}",
            remedy="allow more: --memory 64G",
        )
    if ending.code == child.NO_SPACE:
        raise BackendError(
            f"{folder.parent} has no space for what TensorRT-RTX writes, {stage}",
            remedy="free some space there, or choose another folder: TMPDIR=FOLDER",
        )
    if ending.code > 0:
        last = ending.said.splitlines()[-1] if ending.said else f"exit code {ending.code}"
        raise BackendError(f"TensorRT-RTX does not work here, {stage}: {last}", remedy=install_command("rtx"))
    name = signal.Signals(-ending.code).name
    problem = f"the compiler crashed ({name}) {stage}"
    return Refusal(architecture, "", "", problem, "quantkit lint MODEL shows what may be wrong with it", problem)
