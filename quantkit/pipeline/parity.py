"""A Q/DQ model on onnxruntime and as a TensorRT engine, tensor by tensor: calibration error or kernel error?

onnxruntime computes Q and DQ as they stand in the file, and everything else in float32. The engine is built of the same
model, without FP16 and TF32, with tensors marked as outputs. Where both agree, what is lost is lost in the file: by its
scales and weights. Where they part, the engine computes something else from there on.

Marked tensors change the engine: what would be fused away has to be computed. A kernel that errs in a fusion alone is
not found this way, and one that is chosen differently beside outputs may hide; the outputs of an engine as it is used
are compared by `evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from quantkit.backends.onnxruntime import OnnxRuntimeSession
from quantkit.data import DataOptions, open_data
from quantkit.data.opening import whole_batches
from quantkit.errors import DataError, ModelError
from quantkit.evaluation.sensitivity import told
from quantkit.graph import Model, has_qdq, load_model, write_model
from quantkit.graph.showing import showing, shown_tensors
from quantkit.job.preparing import choose_spec
from quantkit.numerics import decibels
from quantkit.pipeline.noise import Sums
from quantkit.preprocess import Preprocess
from quantkit.values import Array, Batch
from quantkit.view import Block, Remarks, Shown, Table

PART = 20.0
"""dB. Rounding of sums moves single values by a step, and these add up on their way: 30 dB and more are usual. Below
this the engine computes something else."""
SAMPLES = 32
"""One batch tells it."""


@dataclass(frozen=True, slots=True)
class TensorParity:
    """A tensor of the engine against onnxruntime's, as SQNR in dB."""

    name: str
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Parity(Shown):
    """tensors: in graph order. parts: the first tensor where engine and onnxruntime part, empty where they agree."""

    tensors: tuple[TensorParity, ...]
    parts: str
    verdict: str
    notes: tuple[str, ...]

    def _view_(self) -> Sequence[Block]:
        rows = [(tensor.name, told(tensor.sqnr_db)) for tensor in self.tensors]
        return self.verdict, Table(("tensor", "engine to onnxruntime"), rows), Remarks(self.notes)


def parity(
    model: str | os.PathLike[str] | Model,
    data: Any,
    preprocess: str | Path | Preprocess | None = None,
    *,
    device: int = 0,
    phase: Callable[[str], None] = lambda _: None,
) -> Parity:
    """Compare on the first batch of the data. Needs a GPU with TensorRT.

    ModelError where there is no Q/DQ; what `build` raises; BackendError without TensorRT, DataError.
    """
    source = model if isinstance(model, Model) else load_model(model)
    if not has_qdq(source):
        raise ModelError(
            f"{source.path} has no QuantizeLinear and no DequantizeLinear: its engine would compute in float",
            remedy="give a Q/DQ model, for example of quantkit quantize",
        )
    spec = choose_spec(preprocess, source, data).spec
    feed, _ = open_data(data, source.inputs, spec, DataOptions(limit=whole_batches(SAMPLES, source.inputs)))
    first = next(feed.portions(), None)
    if first is None:
        raise DataError("the data yields no samples", remedy="give at least one readable sample")
    tensors = shown_tensors(source)
    phase("onnxruntime")
    exact = dict(OnnxRuntimeSession(source, tensors).runner()(first.batch))
    phase("building an engine that shows its tensors")
    with engine_of(source, tensors, first.batch, device) as engine:
        found = next(iter(engine.run([first.batch])))
    return judged(tensors, exact, found, source.outputs)


@contextmanager
def engine_of(source: Model, tensors: Sequence[str], batch: Batch, device: int) -> Iterator[Any]:
    """An engine of the model with tensors as outputs, built in a folder that goes with it."""
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.pipeline.build import build

    with TemporaryDirectory(prefix="quantkit-") as folder:
        path = Path(folder) / source.path.name
        write_model(showing(source, tensors), source.folder, path)
        options = BuildOptions(
            fp16=False, tf32=False, shapes=shapes_of(source, batch), timing_cache=False, device=device
        )
        built = build(path, options=options, output=Path(folder) / "shown.engine")
        with Engine.load(built.path, device) as engine:
            yield engine


def shapes_of(source: Model, batch: Batch) -> tuple[str, ...]:
    """The shapes of a batch, for the inputs that are dynamic."""
    dynamic = [i.name for i in source.inputs if not all(isinstance(size, int) for size in i.shape)]
    return tuple(f"{name}={'x'.join(map(str, batch[name].shape))}" for name in dynamic)


def judged(
    tensors: Sequence[str], exact: Mapping[str, Array], found: Mapping[str, Array], outputs: Sequence[str]
) -> Parity:
    """What the figures say. Tensors that the engine does not show are named."""
    both = [name for name in tensors if name in exact and name in found]
    figures = tuple(TensorParity(name, sqnr(exact[name], found[name])) for name in both)
    parting = next((tensor for tensor in figures if tensor.sqnr_db < PART), None)
    missing = [name for name in tensors if name not in found]
    notes = ["tensors that are marked as outputs keep TensorRT from fusing across them: this is another engine"]
    if missing:
        notes.append(f"{len(missing)} tensors are not shown by the engine, for example {missing[0]}")
    ends = ", ".join(f"{t.name} {told(t.sqnr_db)}" for t in figures if t.name in outputs)
    if parting is not None:
        verdict = f"kernel error: engine and onnxruntime part at {parting.name} ({told(parting.sqnr_db)})"
        return Parity(figures, parting.name, verdict, tuple(notes))
    verdict = f"calibration error: the engine computes what the model says (outputs: {ends})"
    return Parity(figures, "", verdict, tuple(notes))


def sqnr(exact: Array, other: Array) -> float:
    """SQNR of a tensor in dB; −inf where the shapes differ."""
    if exact.shape != other.shape:
        return -np.inf
    sums = Sums()
    sums.add("", exact, other)
    return decibels(sums.ratio([""]))
