"""The networks that a model is compared with: itself with its float part in FP16, and its float network in FP16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quantkit.errors import ModelError
from quantkit.graph.load import load_model
from quantkit.graph.model import Model
from quantkit.graph.operators import QDQ
from quantkit.graph.save import write_model
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.removal import remove_qdq
from quantkit.rewrites.fp16 import CODES, FLOAT, HALF, convert_to_fp16

FLOAT_NETWORK, FLOAT_PART = "float network in FP16", "float part in FP16"


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A network to compare with, in a file of its own; or the reason why there is none."""

    kind: str
    model: Model | None
    reason: str = ""


def fp16_counterparts(model: Model, folder: Path) -> Iterator[Counterpart]:
    """Yield the counterparts of a model in FP16, written into a folder. A float model in FP16 has none."""
    if has_qdq(model):
        if not has_fp16_pairs(model):
            yield in_fp16(model, folder / "part.onnx", FLOAT_PART)
        yield float_network(model, folder / "float.onnx")
    elif not stores_type(model, HALF):
        yield in_fp16(model, folder / "float.onnx", FLOAT_NETWORK)


def float_network(model: Model, path: Path) -> Counterpart:
    """Return the float network of a Q/DQ model in FP16."""
    stripped = remove_qdq(model)
    if stripped.left:
        name, reason = next(iter(stripped.left.items()))
        return Counterpart(FLOAT_NETWORK, None, f"Q/DQ node {name!r} cannot be removed: {reason}")
    return in_fp16(replace(model, proto=stripped.proto), path, FLOAT_NETWORK)


def in_fp16(model: Model, path: Path, kind: str) -> Counterpart:
    """Return a model in FP16; its inputs and outputs stay float32."""
    try:
        write_model(convert_to_fp16(model).proto, model.folder, path)
    except ModelError as error:
        return Counterpart(kind, None, error.summary)
    return Counterpart(kind, load_model(path))


def has_fp16_pairs(model: Model) -> bool:
    """Return whether a scale of a Q/DQ pair is float16, as where the float part is FP16."""
    scales = {name for node in model.proto.graph.node if node.op_type in QDQ for name in node.input[1:2]}
    return any(t.name in scales and t.data_type == CODES[HALF] for t in model.proto.graph.initializer)


def stores_type(model: Model, dtype: str) -> bool:
    """Return whether a model stores weights of a type (float16 or float32)."""
    assert dtype in (FLOAT, HALF)
    return any(tensor.data_type == CODES[dtype] for tensor in model.proto.graph.initializer)
