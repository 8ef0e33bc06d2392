"""Checks of a configuration, parsed by Triton's own protocol buffers (`tritonclient[grpc]`), against its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantkit.errors import BackendError, OutputError
from quantkit.export.config import TYPES
from quantkit.export.served_model import ServedTensor
from quantkit.extras import install_command

Contract = dict[str, Any]


def has_triton() -> bool:
    """Return True if tritonclient is installed."""
    import importlib.util

    return importlib.util.find_spec("tritonclient") is not None and importlib.util.find_spec("grpc") is not None


def parse_config(text: str, where: str) -> Any:
    """Parse a ModelConfig. BackendError if tritonclient is missing; OutputError if the text is invalid."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError):  # tritonclient raises RuntimeError where grpc is missing
        raise BackendError(
            f"{where} cannot be read without Triton's protocol buffers", remedy=install_command("triton")
        ) from None
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise OutputError(f"{where} is not a model configuration: {error}", remedy="fix or remove it") from None


def config_contract(config: Any) -> Contract:
    """Return the fields that clients and other versions rely on."""
    return {
        "name": config.name,
        "platform": config.platform or config.backend,
        "max_batch_size": config.max_batch_size,
        "input": [port_contract(p) for p in config.input],
        "output": [port_contract(p) for p in config.output],
    }


def port_contract(value: Any) -> tuple[str, int, tuple[int, ...], tuple[int, ...] | None]:
    """Return name, type, dims and reshape of an input or output."""
    reshape = tuple(value.reshape.shape) if value.HasField("reshape") else None
    return value.name, value.data_type, tuple(value.dims), reshape


def check_config(
    text: str, name: str, most: int, inputs: Sequence[ServedTensor], outputs: Sequence[ServedTensor]
) -> None:
    """Parse a configuration just written and compare it with its model. AssertionError is a bug in quantkit."""
    from tritonclient.grpc import model_config_pb2

    found = config_contract(parse_config(text, f"{name}/config.pbtxt"))
    assert (found["name"], found["max_batch_size"]) == (name, most), "bug in quantkit: wrong name or batch size"
    for ports, tensors in ((found["input"], inputs), (found["output"], outputs)):
        written = []
        for port_name, kind, dims, reshape in ports:
            own = dims if reshape is None else reshape
            written.append((port_name, model_config_pb2.DataType.Name(kind), ((-1,) if most else ()) + own))
        wanted = [
            (t.name, f"TYPE_{TYPES[t.dtype]}", ((-1,) if most else ()) + t.shape[1 if most else 0 :]) for t in tensors
        ]
        assert written == wanted, f"bug in quantkit: the configuration has {written}, the model {wanted}"
