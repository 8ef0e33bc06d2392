"""A configuration as Triton's own protocol buffers read it (`tritonclient[grpc]`), against the model that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantkit.errors import BackendError, OutputError
from quantkit.export.config import TYPES
from quantkit.export.served_model import ServedTensor
from quantkit.extras import install_command

Contract = dict[str, Any]


def has_triton() -> bool:
    """Whether tritonclient is there."""
    import importlib.util

    return importlib.util.find_spec("tritonclient") is not None and importlib.util.find_spec("grpc") is not None


def parse_config(text: str, where: str) -> Any:
    """The ModelConfig in a text. BackendError where tritonclient is missing; OutputError where it is none."""
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
        raise OutputError(f"{where} is no model configuration: {error}", remedy="mend or remove it") from None


def config_contract(config: Any) -> Contract:
    """What clients and other versions rely on, by the name of the field."""
    return {
        "name": config.name,
        "platform": config.platform or config.backend,
        "max_batch_size": config.max_batch_size,
        "input": [port_contract(p) for p in config.input],
        "output": [port_contract(p) for p in config.output],
    }


def port_contract(value: Any) -> tuple[str, int, tuple[int, ...], tuple[int, ...] | None]:
    """Name, type, dims and reshape of an input or output."""
    reshape = tuple(value.reshape.shape) if value.HasField("reshape") else None
    return value.name, value.data_type, tuple(value.dims), reshape


def check_config(
    text: str, name: str, most: int, inputs: Sequence[ServedTensor], outputs: Sequence[ServedTensor]
) -> None:
    """Read a configuration that was just written, and compare it with the model. An AssertionError is our bug."""
    from tritonclient.grpc import model_config_pb2

    found = config_contract(parse_config(text, f"{name}/config.pbtxt"))
    assert (found["name"], found["max_batch_size"]) == (name, most), "bug in quantkit: another name or batch"
    for ports, tensors in ((found["input"], inputs), (found["output"], outputs)):
        told = []
        for port_name, kind, dims, reshape in ports:
            own = dims if reshape is None else reshape
            told.append((port_name, model_config_pb2.DataType.Name(kind), ((-1,) if most else ()) + own))
        wanted = [
            (t.name, f"TYPE_{TYPES[t.dtype]}", ((-1,) if most else ()) + t.shape[1 if most else 0 :]) for t in tensors
        ]
        assert told == wanted, f"bug in quantkit: the configuration says {told}, the model {wanted}"
