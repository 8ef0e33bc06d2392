"""Where engines of candidates are built, profiled and timed: TensorRT on a GPU, or recorded engines in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from quantkit.engines.bench_builds import machine_name, shapes_for_batches
from quantkit.engines.build import build
from quantkit.engines.built_engine import BuiltEngine
from quantkit.engines.round_times import SECONDS, RoundTimes, measure_rounds, open_meters
from quantkit.errors import StaleError
from quantkit.graph import Model, write_model
from quantkit.graph.model import node_name
from quantkit.tuning.speed.candidate import EngineKind

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.engine_record import EngineLayer
    from quantkit.backends.tensorrt.layer_profile import ProfiledLayer
    from quantkit.backends.tensorrt.options import BuildOptions


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """An engine to build. proto: the network, float or with Q/DQ; table: for a float network that is to be INT8;
    exclude: its nodes that stay float."""

    name: str
    kind: EngineKind
    proto: onnx.ModelProto
    table: Path | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabEngine:
    """An engine that was built. seconds: of the build, of the one that it was reused from if there was one."""

    name: str
    engine: Path
    model: Path
    seconds: float
    layers: tuple[EngineLayer, ...]
    counts: Mapping[str, int]
    nodes: tuple[str, ...] = ()


class EngineLab(Protocol):
    """The part of TensorRT and a GPU that a search by time needs.

    machine: GPU and library. reads_tables: whether TensorRT chooses precisions by a table. half: whether FP16 has to be
    in the graph (TensorRT 11).
    """

    machine: str
    reads_tables: bool
    half: bool

    def build(self, request: EngineRequest) -> LabEngine:
        """Build an engine. BackendError, ModelError or TableError where TensorRT cannot."""

    def profile(self, built: LabEngine, batch: int) -> Sequence[ProfiledLayer]:
        """Return the layers of an engine with their times."""

    def time(self, built: Sequence[LabEngine]) -> Mapping[str, Mapping[int, RoundTimes]]:
        """Return name → batch size → times of engines, side by side."""


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Options of the builds and measurements. shapes: as for `build`; empty for those that the batch sizes need."""

    batches: tuple[int, ...]
    level: int
    device: int = 0
    shapes: tuple[str, ...] = ()


class TensorrtLab:
    """TensorRT and a GPU of this machine. Models, engines and the timing cache lie in `folder`."""

    def __init__(self, source: Model, folder: Path, options: LabOptions, phase: Callable[[str], None]) -> None:
        from quantkit.backends.tensorrt.versions import detect_features, tensorrt

        features = detect_features(tensorrt())
        self._source, self._folder, self._options, self._phase = source, folder, options, phase
        self.machine = machine_name(options.device)
        self.reads_tables = features.precision_flags
        self.half = features.always_strong

    @contextmanager
    def ready(self) -> Iterator[TensorrtLab]:
        """Keep TensorRT's kernels loaded between the builds."""
        from quantkit.backends.tensorrt.build import kernels_loaded

        with kernels_loaded(self._options.device):
            yield self

    def build(self, request: EngineRequest) -> LabEngine:
        """Build an engine, or reuse it if it was built from the same inputs."""
        from quantkit.backends.tensorrt.options import BuildOptions, Precision

        stem, chosen = self._source.path.stem, self._options
        model = self._folder / f"{stem}.{request.name}.onnx"
        write_model(request.proto, self._source.folder, model)
        is_float = request.kind is EngineKind.FP16
        options = BuildOptions(
            precision=Precision.FP16 if is_float and not self.half else Precision.TF32 if is_float else Precision.INT8,
            shapes=chosen.shapes or shapes_for_batches(self._source, chosen.batches),
            level=chosen.level,
            device=chosen.device,
            retarget=True,
            min_coverage=0.0,
            exclude=request.exclude,
        )
        made = self._build(model, options, request, self._folder / f"{stem}.{request.name}.engine")
        return LabEngine(
            name=request.name,
            engine=made.path,
            model=model,
            seconds=made.record.seconds,
            layers=made.record.layers,
            counts=made.counts,
            nodes=tuple(node_name(node) for node in request.proto.graph.node),
        )

    def _build(self, model: Path, options: BuildOptions, request: EngineRequest, output: Path) -> BuiltEngine:
        """Build an engine; one of other inputs, from an earlier tuning in the same folder, is replaced."""

        def phase(text: str) -> None:
            self._phase(f"{request.name}: {text}")

        try:
            return build(model, options=options, table=request.table, output=output, phase=phase)
        except StaleError:
            anew = replace(options, force=True)
            return build(model, options=anew, table=request.table, output=output, phase=phase)

    def profile(self, built: LabEngine, batch: int) -> Sequence[ProfiledLayer]:
        """Return the layers of an engine with their times."""
        from quantkit.backends.tensorrt.engine import Engine
        from quantkit.backends.tensorrt.layer_profile import profile_engine, without_overhead

        self._phase(f"{built.name}: timing its layers at batch {batch}")
        with Engine.load(built.engine, self._options.device) as engine:
            layers = profile_engine(engine, batch, built.nodes)
            with ExitStack() as held:
                whole = open_meters({"": engine}, batch, held)[""].measure(SECONDS)
            return without_overhead(layers, float(np.median(whole)))

    def time(self, built: Sequence[LabEngine]) -> Mapping[str, Mapping[int, RoundTimes]]:
        """Return name → batch size → times of engines, side by side."""
        paths = {item.name: item.engine for item in built}
        return measure_rounds(paths, self._options.batches, device=self._options.device, say=self._phase)


def weighted_profile(
    profiles: Mapping[int, Sequence[ProfiledLayer]], totals: Mapping[int, float]
) -> tuple[ProfiledLayer, ...]:
    """Return one profile of an engine for several batch sizes: each layer's share of the total, its mean over them.

    totals: batch size → the milliseconds that count as 1. The tensors are those of the largest batch.
    """
    largest = max(profiles)
    shares: dict[str, float] = {}
    for batch, layers in profiles.items():
        for layer in layers:
            share = layer.milliseconds / totals[batch] / len(profiles)
            shares[layer.name] = shares.get(layer.name, 0.0) + share
    counts: dict[str, int] = {}
    for layer in profiles[largest]:
        counts[layer.name] = counts.get(layer.name, 0) + 1
    return tuple(replace(layer, milliseconds=shares[layer.name] / counts[layer.name]) for layer in profiles[largest])
