"""The process that compiles: `python -m quantkit.backends.tensorrt_rtx.child FOLDER`, with `request.json` in FOLDER.

It writes what it found into the folder, file by file, since the compiler can crash at any time: `stage` before each
stage begins, `sm86.log`, `sm86.engine` and `sm86.json` for each architecture, or `sm86.errors.json` where the network
is refused. Its parent (see `compiling`) reads them, whatever became of this process.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from quantkit.regular_file import read_regular

STAGE, REQUEST, ERRORS, VERSION = "stage", "request.json", ".errors.json", "version"
NO_SPACE = 74
"""The exit code if the folder's file system is full, where not even a message can be left."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


def compile_request(folder: Path) -> None:
    """Compile as `request.json` asks: the path of the model, the shapes of its inputs, and the architectures."""
    request = json.loads(read_regular(folder / REQUEST))
    end_with_parent(request["parent"])
    limit_memory(request["memory"])
    import tensorrt_rtx as trt

    os.chdir(folder)
    (folder / VERSION).write_text(trt.__version__)
    for architecture in request["architectures"]:
        (folder / STAGE).write_text(f"parsing it for {architecture}")
        if not compile_for(trt, folder, architecture, request):
            return


def end_with_parent(parent: int) -> None:
    """Let the system end this process when its parent ends, however that happens. parent: its process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that asked for a compilation has ended")


def limit_memory(most: int) -> None:
    """Limit the address space of this process, in bytes; beyond it, allocations fail."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def compile_for(trt: Any, folder: Path, architecture: str, request: dict[str, Any]) -> bool:
    """Parse and compile for one architecture, and write what became of it. False if it cannot be parsed for any."""
    with open(folder / f"{architecture}.log", "w", encoding="utf-8", errors="replace") as file:
        log = log_to(trt, file)
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(request["model"]):
            write_errors(folder, architecture, [error_fields(parser.get_error(k)) for k in range(parser.num_errors)])
            return False
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, architecture.upper()), 0)
        profile = builder.create_optimization_profile()
        for name, shape in request["shapes"].items():
            profile.set_shape(name, shape, shape, shape)
        config.add_optimization_profile(profile)
        (folder / STAGE).write_text(f"compiling it for {architecture}")
        begun = time.monotonic()
        engine = builder.build_serialized_network(network, config)
        seconds = time.monotonic() - begun
    if engine is None:
        write_errors(folder, architecture, [empty_error(text) for text in log.errors])
        return True
    content = memoryview(engine)
    (folder / f"{architecture}.engine").write_bytes(content)
    (folder / f"{architecture}.json").write_text(json.dumps({"seconds": seconds, "bytes": len(content)}))
    return True


def write_errors(folder: Path, architecture: str, errors: list[dict[str, str]]) -> None:
    """Write why the network is refused for an architecture."""
    (folder / f"{architecture}{ERRORS}").write_text(json.dumps(errors or [empty_error("no reason")]))


def log_to(trt: Any, file: Any) -> Any:
    """Return a logger that writes all lines to a file, and keeps those of errors."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            file.write(f"{text}\n")
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text)

    return Log()


def error_fields(error: Any) -> dict[str, str]:
    """Return what the parser says of one error; place: the number of the node in the file."""
    name, operator, place = error.node_name(), error.node_operator(), str(error.node())
    return {"node": name, "operator": operator, "place": place, "text": error.desc()}


def empty_error(text: str) -> dict[str, str]:
    """Return an error that names no node."""
    return {"node": "", "operator": "", "place": "", "text": text}


if __name__ == "__main__":
    try:
        compile_request(Path(sys.argv[1]))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(NO_SPACE)
