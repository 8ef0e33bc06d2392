"""Triton in a few lines, for tests: reads a model repository as its protocol buffers say, and runs it on onnxruntime.

It takes what a configuration allows and nothing else: names, types, shapes, batches up to the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

Array = NDArray[Any]
TYPES = {
    "TYPE_UINT8": np.uint8,
    "TYPE_INT8": np.int8,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
}


def config_of(root: Path, name: str) -> Any:
    """The configuration of a model."""
    text = (root / name / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def type_name(port: Any) -> str:
    return str(model_config_pb2.DataType.Name(port.data_type))


class Server:
    """The models of a repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, int]] = []
        self._sessions: dict[Path, onnxruntime.InferenceSession] = {}

    def infer(self, name: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a model or an ensemble."""
        config = config_of(self.root, name)
        assert config.name == name
        self.asked.append((name, len(next(iter(feeds.values())))))
        self.fit(config, config.input, feeds)
        newest = self.root / name / str(max(int(p.name) for p in (self.root / name).iterdir() if p.name.isdigit()))
        if config.platform == "ensemble":
            tensors = dict(feeds)
            for step in config.ensemble_scheduling.step:
                made = self.infer(step.model_name, {own: tensors[there] for own, there in step.input_map.items()})
                tensors.update({there: made[own] for own, there in step.output_map.items()})
            outputs = {port.name: tensors[port.name] for port in config.output}
        else:
            path = newest / "model.onnx"
            if path not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                self._sessions[path] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            names = [port.name for port in config.output]
            outputs = dict(zip(names, self._sessions[path].run(names, dict(feeds)), strict=True))
        self.fit(config, config.output, outputs)
        return outputs

    def fit(self, config: Any, ports: Any, arrays: Mapping[str, Array]) -> None:
        """Assert that arrays are what the configuration says."""
        assert [port.name for port in ports] == list(arrays) or {port.name for port in ports} == set(arrays)
        for port in ports:
            array, dims = arrays[port.name], list(port.reshape.shape if port.HasField("reshape") else port.dims)
            assert array.dtype == TYPES[type_name(port)]
            if config.max_batch_size:
                assert 1 <= len(array) <= config.max_batch_size
                dims = [-1, *dims]
            assert len(dims) == array.ndim
            assert all(want in (-1, have) for want, have in zip(dims, array.shape, strict=True)), (dims, array.shape)


@contextmanager
def listening(server: Server) -> Iterator[str]:
    """The server behind Triton's gRPC service; gives host and port."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            del context
            feeds = {}
            for value, raw in zip(request.inputs, request.raw_input_contents, strict=True):
                feeds[value.name] = np.frombuffer(raw, triton_to_np_dtype(value.datatype)).reshape(tuple(value.shape))
            outputs = server.infer(request.model_name, feeds)
            answer = service_pb2.ModelInferResponse(model_name=request.model_name)
            for wanted in request.outputs:
                array = outputs[wanted.name]
                answer.outputs.add(name=wanted.name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
                answer.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
            return answer

    with ThreadPoolExecutor(2) as pool:
        service = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), service)
        port = service.add_insecure_port("127.0.0.1:0")
        service.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            service.stop(None).wait()
