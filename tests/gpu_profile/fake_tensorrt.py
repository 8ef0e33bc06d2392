"""A TensorRT and a GPU that build and time nothing, but take and return what the real ones do."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

FLAGS = SimpleNamespace(FP16="FP16", INT8="INT8", PREFER_PRECISION_CONSTRAINTS="PREFER")


class Tensor(SimpleNamespace):
    """A tensor of a network."""


class Network:
    def __init__(self) -> None:
        self.proto = onnx.ModelProto()
        self.halves: set[str] = set()
        self.layers: list[Any] = []
        self.num_inputs = self.num_outputs = self.num_layers = 0

    def parse(self, data: bytes) -> None:
        self.proto = onnx.ModelProto.FromString(data)
        graph = self.proto.graph
        self.inputs, self.outputs = ([Tensor(name=v.name) for v in vs] for vs in (graph.input, graph.output))
        self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)
        made = {name for node in graph.node for name in node.output}
        self.layers = [
            Tensor(type=node.op_type, num_inputs=1 + (node.input[1] in made))
            for node in graph.node
            if node.op_type == "Conv"
        ]
        self.num_layers = len(self.layers)

    def get_input(self, k: int) -> Tensor:
        return self.inputs[k]

    def get_output(self, k: int) -> Tensor:
        return self.outputs[k]

    def get_layer(self, k: int) -> Tensor:
        return self.layers[k]


class Parser:
    def __init__(self, network: Network, _: object) -> None:
        self.network = network

    def parse(self, data: bytes) -> bool:
        self.network.parse(data)
        return True


class Config:
    def __init__(self) -> None:
        self.flags: list[str] = []
        self.max_aux_streams = 7
        self.builder_optimization_level = 3
        self.profiling_verbosity = ""

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_preview_feature(self, feature: object, on: bool) -> None:
        pass

    def create_timing_cache(self, _: bytes) -> object:
        return object()

    def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
        return cache is not None and ignore_mismatch


class Builder:
    """refuses: words in node names of chains whose builds fail."""

    refuses: tuple[str, ...] = ()

    def __init__(self, _: object) -> None:
        self.configs: list[Config] = []

    def create_network(self, _: int) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        self.configs.append(Config())
        return self.configs[-1]

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        assert config.max_aux_streams == 0
        names = [node.name for node in network.proto.graph.node]
        if any(word in name for word in self.refuses for name in names):
            return None
        assert all((layer.num_inputs == 1) == hasattr(layer, "precision") for layer in network.layers)
        halves = [t.name for t in (*network.inputs, *network.outputs) if getattr(t, "dtype", "") == "half"]
        entry = network.proto.metadata_props.add()
        entry.key, entry.value = "halves", " ".join(halves)
        return network.proto.SerializeToString()


class Engine:
    def __init__(self, plan: bytes) -> None:
        self.proto = onnx.ModelProto.FromString(plan)
        graph = self.proto.graph
        self.bound = [*graph.input, *graph.output]
        self.num_io_tensors = len(self.bound)
        self.layers = [n.name for n in graph.node if n.op_type not in ("Identity", "DequantizeLinear")]

    def get_tensor_dtype(self, name: str) -> str:
        return "half" if name in self.proto.metadata_props[0].value.split() else "float"

    def get_tensor_name(self, k: int) -> str:
        return str(self.bound[k].name)

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if ".in" in name else "OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (value,) = [v for v in self.bound if v.name == name]
        return tuple(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses = engine, dict[str, int]()
        self.profiler: Any = None
        self.enqueue_emits_profile = True

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Stream.handle
        assert len(self.addresses) == self.engine.num_io_tensors
        return True

    def report_to_profiler(self) -> None:
        for k, name in enumerate(self.engine.layers):
            self.profiler.report_layer_time(name, 0.004 + 0.001 * (k % 3))


class Inspector:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, _: object) -> str:
        tensor = {"Name": "t", "Dimensions": [1], "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
        return json.dumps(
            {"Layers": [{"Name": n, "LayerType": "x", "Inputs": [tensor], "Outputs": []} for n in self.engine.layers]}
        )


class Event:
    def since(self, _: Event) -> float:
        return 0.02

    def wait(self) -> None:
        pass

    def free(self) -> None:
        pass


class Stream:
    handle = 0

    def event(self) -> Event:
        return Event()

    def synchronize(self) -> None:
        pass

    def free(self) -> None:
        pass

    def fill(self, buffer: object) -> None:
        pass

    def upload(self, buffer: Any, array: np.ndarray) -> None:
        assert array.nbytes <= buffer.size

    def capture(self, work: Any) -> Any:
        work()
        return SimpleNamespace(launch=lambda _: None, free=lambda: None)


class Device:
    name, capability = "NVIDIA Imaginary", (9, 0)

    @contextmanager
    def current(self) -> Any:
        yield

    def memory(self) -> tuple[int, int]:
        return 1 << 33, 1 << 33

    def buffer(self, size: int) -> Any:
        return SimpleNamespace(address=1, size=size, free=lambda: None)

    def pinned(self, size: int) -> np.ndarray:
        return np.empty(size, np.uint8)

    def stream(self) -> Stream:
        return Stream()


class Named:
    def __init__(self) -> None:
        pass

    def desc(self) -> str:
        return "an error"


class Module(SimpleNamespace):
    """A module, which is hashable."""

    __hash__ = object.__hash__


TENSORRT = Module(
    float16="half", LayerType=SimpleNamespace(CONVOLUTION="Conv", DECONVOLUTION="ConvTranspose"),
    __version__="8.6.0", Builder=Builder, OnnxParser=Parser, BuilderFlag=FLAGS, ILogger=Named, IProfiler=Named,
    ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"), TensorIOMode=SimpleNamespace(INPUT="INPUT"),
    NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0), LayerInformationFormat=SimpleNamespace(JSON=1),
    PreviewFeature=SimpleNamespace(PROFILE_SHARING_0806="x"), init_libnvinfer_plugins=lambda *_: None,
    Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=Engine),
)  # fmt: skip
