"""What must go right beside the numbers: neighbours in the process, errors, threads, memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import quantkit
from acceptance.scripts import build
from acceptance.streaming import network
from quantkit.backends.tensorrt.build import build_engine
from quantkit.backends.tensorrt.device import open_device
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.shapes import parse_shapes
from quantkit.calibration.tensorrt import EntropyCalibrator2
from quantkit.graph import load_model

SHAPE = (4, 3, 224, 224)


def batches(count: int, fail: Callable[[int], int] | None = None) -> Callable[[], Iterator[dict[str, Any]]]:
    """A stream of batches; `fail(k)` may raise, or give another number of samples."""

    def stream() -> Iterator[dict[str, Any]]:
        for k in range(count):
            samples = fail(k) if fail else SHAPE[0]
            yield {"image": np.full((samples, *SHAPE[1:]), 0.25 * (k + 1), np.float32)}

    return stream


def at(number: int, what: BaseException | int) -> Callable[[int], int]:
    """Batch `number` raises, or is of another size."""

    def fail(k: int) -> int:
        if k != number:
            return SHAPE[0]
        if isinstance(what, BaseException):
            raise what
        return what

    return fail


def outcome(work: Callable[[], Any]) -> str:
    """The name of the error, or `fine`."""
    try:
        work()
    except BaseException as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "fine"


def failures(folder: Path, model: Path) -> dict[str, Any]:
    """Each ends in its own error, and leaves neither table nor engine."""
    found = {}
    cases: dict[str, BaseException | int] = {
        "an exception": ValueError("no such row"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "a short batch in between": 3,
    }
    for name, what in cases.items():
        table = folder / f"{name.replace(' ', '-')}.calib"
        told = outcome(
            lambda table=table, what=what: build(
                model, EntropyCalibrator2(model, batches(4, at(1, what)), table=table), SHAPE
            )
        )
        left = sorted(path.name for path in folder.glob(f"*{table.stem}*"))
        found[name] = {"raised": told, "files_left": left}
    return found


def last_partial(folder: Path, model: Path) -> dict[str, Any]:
    """A last batch that is shorter is filled, and that is said."""
    table = folder / "partial.calib"
    calibrator = EntropyCalibrator2(model, batches(3, at(2, 2)), table=table)
    build(model, calibrator, SHAPE)
    seen = calibrator.streaming.seen
    return {"samples": seen.samples, "repeated": seen.repeated, "written": table.exists()}


def neighbours(model: Path) -> dict[str, Any]:
    """torch tensors before, between and after; memory that comes back."""
    try:
        import torch
    except ImportError as error:
        return {"torch": f"not run: {error}"}
    before = torch.arange(1000, device="cuda", dtype=torch.float32)
    build(model, EntropyCalibrator2(model, batches(4)), SHAPE)
    between = before * 2
    ranges = parse_shapes(("image=1:4:4",), load_model(model).inputs)
    made = build_engine(load_model(model), BuildOptions(precision=Precision.FP32, level=0), ranges)
    with Engine(made.plan, "pool") as engine:
        outputs = list(engine.run([{"image": np.ones(SHAPE, np.float32)}] * 3, streams=2, graphs=True))
    after = torch.arange(1000, device="cuda", dtype=torch.float32)
    torch.cuda.synchronize()
    return {
        "torch": torch.__version__,
        "before": float(before.sum()),
        "between": float(between.sum()),
        "after": float((after + before).sum()),
        "expected": [499500.0, 999000.0, 999000.0],
        "engine_output_sum": float(sum(o["out"].sum() for o in outputs)),
    }


def memory(model: Path) -> dict[str, Any]:
    """GPU memory before and after calibrations of different length."""
    device = open_device()
    build(model, EntropyCalibrator2(model, batches(4)), SHAPE)
    free = [device.memory()[0]]
    for count in (4, 64):
        calibrator = EntropyCalibrator2(model, batches(count), limit=count * SHAPE[0])
        build(model, calibrator, SHAPE)
        free.append(device.memory()[0])
    return {"free_bytes_after_4_4_64_batches": free, "lost": free[0] - free[-1]}


def from_a_thread(model: Path) -> str:
    """A calibration in a thread."""
    told: list[str] = []

    def work() -> None:
        told.append(outcome(lambda: build(model, EntropyCalibrator2(model, batches(4)), SHAPE)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return told[0]


def refusals(folder: Path, model: Path) -> dict[str, str]:
    """One clear line for each."""
    garbage = folder / "garbage.engine"
    garbage.write_bytes(b"garbage" * 100)
    built = quantkit.build(
        model, options=BuildOptions(precision=Precision.FP32, level=0), output=folder / "pool.engine"
    )
    cut = folder / "cut.engine"
    cut.write_bytes(built.path.read_bytes()[:2000])
    with Engine.load(built.path) as engine:
        wrong = outcome(lambda: list(engine.run([{"image": np.ones((64, 3, 224, 224), np.float32)}])))
    strange = folder / "strange.onnx"
    strange_network(strange)
    return {
        "garbage engine": outcome(lambda: Engine.load(garbage)),
        "engine cut short": outcome(lambda: Engine.load(cut)),
        "batch too large": wrong,
        "operators that TensorRT cannot parse": full(
            lambda: quantkit.build(strange, options=BuildOptions(precision=Precision.FP32))
        ),
        "INT8 without scales": outcome(lambda: quantkit.build(model, options=BuildOptions())),
        "a GPU that is not there": outcome(
            lambda: quantkit.build(model, options=BuildOptions(precision=Precision.FP32, device=7))
        ),
    }


def full(work: Callable[[], Any]) -> str:
    """The whole message."""
    try:
        work()
    except quantkit.QuantkitError as error:
        return str(error)
    return "fine"


def strange_network(path: Path) -> None:
    """Two operators that nobody has."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Shrivel", ["x"], ["y"], name="first", domain="my.domain"),
            helper.make_node("Wither", ["y"], ["z"], name="second", domain="my.domain"),
        ],
        "strange",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def measured(folder: Path) -> dict[str, Any]:
    """All of it."""
    model = network(folder / "pool.onnx")
    parts: dict[str, Callable[[], Any]] = {
        "neighbours": lambda: neighbours(model),
        "failures": lambda: failures(folder, model),
        "last_partial_batch": lambda: last_partial(folder, model),
        "memory": lambda: memory(model),
        "from_a_thread": lambda: from_a_thread(model),
        "refusals": lambda: refusals(folder, model),
    }
    found: dict[str, Any] = {}
    for name, part in parts.items():
        with contextlib.suppress(KeyboardInterrupt):
            found[name] = part()
    return found
