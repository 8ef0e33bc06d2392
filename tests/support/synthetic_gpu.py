"""A GPU whose engines take times that a cost of each node defines, in place of TensorRT for tuning by time.

Its engines fuse a weighted operator with the activation behind it, choose by a table node by node, and round a tensor
in a kernel of its own between float and INT8, all of it as TensorRT does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from quantkit.backends.engine_record import EngineLayer
from quantkit.backends.tensorrt.layer_profile import ProfiledLayer, ProfiledTensor
from quantkit.engines.round_times import RoundTimes
from quantkit.errors import BackendError
from quantkit.graph import Model
from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.operators import ACTIVATIONS, WEIGHTED
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.placement import Choices
from quantkit.tuning.speed.candidate import EngineKind, SpeedPlacement
from quantkit.tuning.speed.lab import EngineRequest, LabEngine
from quantkit.tuning.speed.layer_nodes import PlacedPairs, placed_pairs


@dataclass
class ManualClock:
    """A clock that builds and measurements move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class PlainNetworks:
    """The networks of candidates, all scales 0.1."""

    model: Model
    halves: list[bool] = field(default_factory=list)
    """Whether FP16 was asked for in the graph, request by request."""

    def plain(self, *, half: bool) -> onnx.ModelProto:
        self.halves.append(half)
        return self.model.proto

    def original(self) -> onnx.ModelProto:
        return self.model.proto

    def table(self) -> Path:
        return Path("net.calib")

    def excluded(self) -> tuple[str, ...]:
        return ()

    def quantized(self, placement: SpeedPlacement, *, half: bool) -> onnx.ModelProto:
        self.halves.append(half)
        names = {name: 0.1 for node in self.model.proto.graph.node for name in (*node.input, *node.output)}
        return insert_qdq(self.model, names, Choices(placement.policy, frozenset(placement.kept))).proto


@dataclass
class SyntheticLab:
    """costs: weighted node → milliseconds in float and in INT8, for one sample and batch 1; others take `light`.

    start, byte: milliseconds of a kernel that rounds, and of a byte that it moves. noise: of every measurement.
    seconds: of each of the first two builds; later ones
    take half, with a table 1.7 times as long. fails: names of candidates that cannot be built.
    """

    model: Model
    costs: Mapping[str, tuple[float, float]]
    start: float = 0.002
    byte: float = 1e-8
    light: float = 0.001
    noise: float = 0.0
    seconds: float = 10.0
    batches: tuple[int, ...] = (1,)
    reads_tables: bool = True
    half: bool = False
    fails: frozenset[str] = frozenset()
    seed: int = 0
    clock: ManualClock = field(default_factory=ManualClock)
    machine: str = "synthetic GPU"
    folder: Path | None = None
    """Where models are written, which stand for their engines."""
    built: list[str] = field(default_factory=list)
    _engines: dict[str, tuple[EngineRequest, PlacedPairs]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._wires: GraphIndex = index_graph(self.model.proto)

    def build(self, request: EngineRequest) -> LabEngine:
        took = self.seconds * (1.7 if request.kind is EngineKind.TABLE else 1.0 if len(self.built) < 2 else 0.5)
        self.clock.now += took
        if request.name in self.fails:
            raise BackendError("TensorRT found no kernel for some layer", remedy="")
        self.built.append(request.name)
        placed = placed_pairs(self._wires, request.proto)
        if request.kind is EngineKind.TABLE:
            assert set(request.exclude) <= set(self._names())
            faster = [n for n, (slow, fast) in self.costs.items() if fast < slow and n not in request.exclude]
            names = {n: 0.1 for node in self.model.proto.graph.node for n in (*node.input, *node.output)}
            others = frozenset(self._names()) - set(faster)
            placed = placed_pairs(self._wires, insert_qdq(self.model, names, Choices(exclude=others)).proto)
        self._engines[request.name] = request, placed
        layers = tuple(
            EngineLayer(name=layer.name, nodes=layer.nodes, kind=layer.kind, precision=layer.precision)
            for layer in self._layers(request.name, 1)
        )
        path = (self.folder or Path()) / f"net.{request.name}.onnx"
        if self.folder is not None:
            onnx.save(request.proto, path)
        return LabEngine(request.name, path, path, took, layers, {"INT8": len(layers)})

    def profile(self, built: LabEngine, batch: int) -> Sequence[ProfiledLayer]:
        self.clock.now += 0.1
        return [replace(x, milliseconds=self._noisy(x.milliseconds)) for x in self._layers(built.name, batch)]

    def time(self, built: Sequence[LabEngine]) -> Mapping[str, Mapping[int, RoundTimes]]:
        self.clock.now += 0.6 * len(built)
        return {
            item.name: {
                batch: RoundTimes(tuple(self._noisy(self.total(item.name, batch)) for _ in range(9)))
                for batch in self.batches
            }
            for item in built
        }

    def request(self, name: str) -> EngineRequest:
        """The request for an engine that was built."""
        return self._engines[name][0]

    def total(self, name: str, batch: int) -> float:
        """The milliseconds of an engine."""
        return sum(layer.milliseconds for layer in self._layers(name, batch))

    def _noisy(self, value: float) -> float:
        return float(value * (1.0 + self.noise * self._random.uniform(-1, 1)))

    def _names(self) -> list[str]:
        return [self._wires.name(number) for number in range(len(self._wires.nodes))]

    def _layers(self, name: str, batch: int) -> list[ProfiledLayer]:
        _, placed = self._engines[name]
        wires, found, done = self._wires, list[ProfiledLayer](), set[int]()
        for number, node in enumerate(wires.nodes):
            if number in done or not wires.activations(number):
                continue
            fused = [number, *self._fused(number)] if node.op_type in WEIGHTED else [number]
            done.update(fused)
            int8 = wires.name(number) in placed.nodes
            for tensor in wires.activations(number) if int8 else ():
                if self._needs_kernel(tensor, placed):
                    found.append(self._rounding(tensor, batch))
            cost = self.costs.get(wires.name(number), (self.light, self.light))[int8] * batch
            names = tuple(wires.name(n) for n in fused)
            tensors = [self._tensor(t, int8, batch) for t in wires.activations(number)]
            output = self._tensor(wires.nodes[fused[-1]].output[0], int8, batch)
            kind = "CaskConvolution" if node.op_type in WEIGHTED else "Other"
            precision = "INT8" if int8 else "FP16"
            found.append(ProfiledLayer(" + ".join(names), kind, precision, names, tuple(tensors), (output,), cost))
        return found

    def _fused(self, number: int) -> list[int]:
        readers = self._wires.readers.get(self._wires.nodes[number].output[0], ())
        if len(readers) == 1 and self._wires.nodes[readers[0].number].op_type in ACTIVATIONS:
            return [readers[0].number]
        return []

    def _needs_kernel(self, tensor: str, placed: PlacedPairs) -> bool:
        """Whether no INT8 kernel makes a tensor that is read in INT8."""
        number = self._wires.makers.get(tensor)
        while number is not None and self._wires.nodes[number].op_type not in WEIGHTED:
            inputs = self._wires.activations(number)
            number = self._wires.makers.get(inputs[0]) if len(inputs) == 1 else None
        return number is None or self._wires.name(number) not in placed.nodes

    def _rounding(self, tensor: str, batch: int) -> ProfiledLayer:
        read, written = self._tensor(tensor, False, batch), self._tensor(tensor, True, batch)
        cost = self.start + self.byte * (2 * read.elements + written.elements)
        return ProfiledLayer(f"{tensor}_QuantizeLinear", "Reformat", "FP16", (f"{tensor}_QuantizeLinear",), (read,),
                             (written,), cost)  # fmt: skip

    def _tensor(self, name: str, int8: bool, batch: int) -> ProfiledTensor:
        shape = tuple(batch if size is None else size for size in self._wires.shapes.get(name, (1,)))
        assert prod(shape) > 0
        return ProfiledTensor(name, "INT8" if int8 else "FP16", shape)


def weighted_names(model: Model) -> list[str]:
    """The weighted operators of a network."""
    wires: Any = index_graph(model.proto)
    return [wires.name(n) for n, node in enumerate(wires.nodes) if node.op_type in WEIGHTED]
