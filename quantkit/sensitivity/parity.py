"""A Q/DQ model in onnxruntime and as TensorRT engines, tensor by tensor: calibration error or kernel error?

onnxruntime executes Q and DQ exactly as in the file, and everything else in float32. Two engines are built from the
same model, without FP16 and TF32. The first has its tensors as outputs: if both agree, the loss comes from the scales
and weights in the file; if they diverge, the engine computes something different from that tensor on. But a tensor that
is an output cannot be fused away, which hides kernels that are wrong only in a fusion. So the outputs of a second
engine, which has no additional outputs, are compared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.backends.session import SessionOpener, open_session
from quantkit.data import DataOptions, open_data
from quantkit.data.opening import whole_batches
from quantkit.data.preprocess_choice import choose_spec
from quantkit.errors import DataError, ModelError
from quantkit.graph import AnyModel, Model, load_model, write_model
from quantkit.numerics import format_db, noise_decibels
from quantkit.output_noise import EnergySums
from quantkit.preprocess import Preprocess
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.tensors_as_outputs import float_activations, with_shown_tensors
from quantkit.values import Array, Batch
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.tensorrt.options import BuildOptions

DIVERGENCE = 20.0
"""dB below which an engine computes something different.

Rounding of sums changes single values by a step, and such changes add up along the network, but
benchmarks/results/parity.json has no tensor below 30 dB."""
SAMPLES = 32
"""One batch is enough."""
LEVEL = 1
"""Optimization level of the builder, for a quick build, because these engines are not timed."""


@dataclass(frozen=True, slots=True)
class TensorParity:
    """A tensor of the engine compared with that of onnxruntime, as SQNR in dB."""

    name: str
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Parity(RichDisplay):
    """The result of a comparison of TensorRT engines with onnxruntime.

    tensors: of the engine that has them as outputs, in graph order. outputs: of the fused engine, which has no
    additional outputs. parts: the first tensor on which an engine and onnxruntime diverge, empty if they agree.
    """

    tensors: tuple[TensorParity, ...]
    outputs: tuple[TensorParity, ...]
    parts: str
    verdict: str
    notes: tuple[str, ...]

    def _view_(self) -> Sequence[Block]:
        whole = {output.name: format_db(output.sqnr_db) for output in self.outputs}
        rows = [(tensor.name, format_db(tensor.sqnr_db), whole.get(tensor.name, "")) for tensor in self.tensors]
        return self.verdict, ViewTable(("tensor", "unfused engine", "fused engine"), rows), Remarks(self.notes)


def parity(
    model: AnyModel,
    data: Any,
    preprocess: str | Path | Preprocess | None = None,
    *,
    device: int = 0,
    phase: Callable[[str], None] = lambda _: None,
    open_session: SessionOpener = open_session,
) -> Parity:
    """Compare on the first batch of the data. Needs a GPU with TensorRT, and builds two engines.

    Raises ModelError if there are no Q/DQ pairs, BackendError without TensorRT, DataError, and the errors of `build`.
    """
    from quantkit.backends.tensorrt.options import BuildOptions

    source = load_model(model)
    if not has_qdq(source):
        raise ModelError(
            f"{source.path} has no QuantizeLinear and no DequantizeLinear: its engine would compute in float",
            remedy="give a Q/DQ model, for example one from quantkit quantize",
        )
    spec = choose_spec(preprocess, source, data).spec
    feed, _ = open_data(data, source.inputs, spec, DataOptions(limit=whole_batches(SAMPLES, source.inputs)))
    first = next(feed.portions(), None)
    if first is None:
        raise DataError("the data yields no samples", remedy="give at least one readable sample")
    tensors = float_activations(source)
    phase("onnxruntime")
    exact = dict(open_session(source, tensors).runner()(first.batch))
    phase("building an engine with its tensors as outputs")
    options = BuildOptions(fp16=False, tf32=False, device=device)
    with temporary_engine(source, with_shown_tensors(source, tensors), first.batch, options) as engine:
        found = next(iter(engine.run([first.batch])))
    hidden = [name for name in tensors if name not in found]
    phase("building a fused engine")
    with temporary_engine(source, source.proto, first.batch, options) as engine:
        fused = next(iter(engine.run([first.batch])))
    return judge_parity(tensor_parities(tensors, exact, found), tensor_parities(source.outputs, exact, fused), hidden)


@contextmanager
def temporary_engine(source: Model, proto: onnx.ModelProto, batch: Batch, options: BuildOptions) -> Iterator[Any]:
    """Yield an engine for a batch, built in a temporary folder. The weights are those of the source."""
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.engines.build import build

    with TemporaryDirectory(prefix="quantkit-") as folder:
        path = Path(folder) / source.path.name
        write_model(proto, source.folder, path)
        chosen = replace(options, level=LEVEL, shapes=batch_shapes(source, batch), timing_cache=False)
        built = build(path, options=chosen, output=path.with_suffix(".engine"))
        with Engine.load(built.path, options.device) as engine:
            yield engine


def batch_shapes(source: Model, batch: Batch) -> tuple[str, ...]:
    """Return the shapes of a batch for the dynamic inputs."""
    dynamic = [i.name for i in source.inputs if not all(isinstance(size, int) for size in i.shape)]
    return tuple(f"{name}={'x'.join(map(str, batch[name].shape))}" for name in dynamic)


def tensor_parities(
    names: Sequence[str], exact: Mapping[str, Array], found: Mapping[str, Array]
) -> tuple[TensorParity, ...]:
    """Return the SQNR of the tensors that both have."""
    return tuple(
        TensorParity(name, tensor_sqnr(exact[name], found[name])) for name in names if name in exact and name in found
    )


def judge_parity(tensors: Sequence[TensorParity], outputs: Sequence[TensorParity], hidden: Sequence[str]) -> Parity:
    """Return the verdict on the figures. hidden: tensors that are no outputs of the engine."""
    notes = (f"{len(hidden)} tensors are not available from the engine, for example {hidden[0]}",) if hidden else ()
    for found, where in ((tensors, ""), (outputs, " if tensors are fused, and agree if they are not")):
        parting = next((tensor for tensor in found if tensor.sqnr_db < DIVERGENCE), None)
        if parting is not None:
            at = f"{parting.name} ({format_db(parting.sqnr_db)})"
            verdict = f"kernel error: engine and onnxruntime diverge at {at}{where}"
            return Parity(tuple(tensors), tuple(outputs), parting.name, verdict, notes)
    ends = ", ".join(f"{output.name} {format_db(output.sqnr_db)}" for output in outputs)
    verdict = f"calibration error: the engine computes what the model defines (outputs: {ends})"
    return Parity(tuple(tensors), tuple(outputs), "", verdict, notes)


def tensor_sqnr(exact: Array, other: Array) -> float:
    """Return the SQNR of a tensor in dB; −inf if the shapes differ."""
    if exact.shape != other.shape:
        return -np.inf
    sums = EnergySums()
    sums.add("", exact, other)
    return noise_decibels(sums.ratio([""]))
