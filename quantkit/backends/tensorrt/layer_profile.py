"""The milliseconds that an engine spends in each of its layers, with the ONNX nodes and the tensors of each.

TensorRT's profiler waits after every layer, so that the times of all layers add up to more than the engine takes:
`without_overhead` takes that off again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.backends.tensorrt.engine_layers import datatype_of, layer_precision, nodes_in
from quantkit.backends.tensorrt.inspection import context_document
from quantkit.backends.tensorrt.timing import timing_inputs
from quantkit.backends.tensorrt.versions import tensorrt

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.engine import Engine

RUNS = 20
"""Runs with the profiler: the median of so many differs by less than 2 % between two profiles of one engine."""

LEAST_SHARE = 0.1
"""The part of a layer's measured time that it takes at least, whatever the profiler costs."""


@dataclass(frozen=True, slots=True)
class ProfiledTensor:
    """A tensor at the border of a layer. dtype: `FP16`, `INT8`, …, or empty if the inspector does not say."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class ProfiledLayer:
    """A layer with its time. nodes: ONNX nodes, Q/DQ among them; none for a reformat that TensorRT added."""

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    inputs: tuple[ProfiledTensor, ...]
    outputs: tuple[ProfiledTensor, ...]
    milliseconds: float


def profile_engine(engine: Engine, batch: int, nodes: Sequence[str], runs: int = RUNS) -> tuple[ProfiledLayer, ...]:
    """Return the layers of an engine in the order of their execution, with the median time of each in `runs` runs.

    nodes: the names of the network's nodes. BackendError where the engine cannot run; ValueError if TensorRT's
    description of the layers cannot be read.
    """
    trt = tensorrt()
    with engine.lane() as lane, engine.device.current():
        lane.load(timing_inputs(engine, batch))
        lane.replay()
        lane.stream.synchronize()
        document = context_document(trt, engine.engine, lane.context)
        watch = layer_watch(trt)
        lane.context.profiler = watch
        for _ in range(runs):
            watch.start_run()
            lane.execute()
            lane.stream.synchronize()
    return profiled_layers(document, median_times(watch.runs), nodes)


def without_overhead(layers: Sequence[ProfiledLayer], whole: float) -> tuple[ProfiledLayer, ...]:
    """Return layers whose times add up to `whole`, the milliseconds of the engine without a profiler.

    Waiting after a layer costs about the same behind each, some 4 µs on an H200, which is more than many layers take.
    """
    timed = [layer.milliseconds for layer in layers if layer.milliseconds > 0.0]
    if not timed or whole <= 0.0:
        return tuple(layers)
    overhead = max(0.0, (sum(timed) - whole) / len(timed))
    times = [max(layer.milliseconds - overhead, LEAST_SHARE * layer.milliseconds) for layer in layers]
    scale = whole / sum(times)
    return tuple(replace(layer, milliseconds=time * scale) for layer, time in zip(layers, times, strict=True))


def layer_watch(trt: Any) -> Any:
    """Return a profiler that keeps the milliseconds of each layer, run by run."""

    class LayerWatch(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: list[dict[str, float]] = []

        def start_run(self) -> None:
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run = self.runs[-1]
            run[layer_name] = run.get(layer_name, 0.0) + ms

    return LayerWatch()


def median_times(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return layer → the median of its milliseconds over the runs."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: float(np.median([run.get(name, 0.0) for run in runs])) for name in names}


def profiled_layers(
    document: Mapping[str, Any], times: Mapping[str, float], nodes: Sequence[str]
) -> tuple[ProfiledLayer, ...]:
    """Return the layers of an inspector's document with their times; one that was not timed takes 0.

    nodes: the names of the network's nodes, for layers whose metadata names none.
    """
    known = dict.fromkeys(nodes, "")
    found = []
    for entry in document.get("Layers", ()):
        if isinstance(entry, str):
            entry = {"Name": entry}
        name = str(entry.get("Name", ""))
        found.append(
            ProfiledLayer(
                name=name,
                kind=str(entry.get("LayerType", "unknown")),
                precision=layer_precision(entry),
                nodes=nodes_in(name, entry.get("Metadata"), known),
                inputs=profiled_tensors(entry, "Inputs"),
                outputs=profiled_tensors(entry, "Outputs"),
                milliseconds=times.get(name, 0.0),
            )
        )
    return tuple(found)


def profiled_tensors(entry: Mapping[str, Any], side: str) -> tuple[ProfiledTensor, ...]:
    """Return the tensors on one side of a layer."""
    return tuple(
        ProfiledTensor(str(tensor.get("Name", "")), datatype_of(tensor), tuple(tensor.get("Dimensions", ())))
        for tensor in entry.get(side, ())
        if isinstance(tensor, Mapping)
    )
