"""The layers of an engine: the ONNX nodes of each, the precision in which it computes, and why that is not INT8.

The source is the JSON of TensorRT's engine inspector (verbosity DETAILED; with an execution context, so that formats
are known for dynamic shapes), whose fields differ slightly between versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantkit.backends.engine_record import EngineLayer
from quantkit.backends.tensorrt.kernel_times import KernelTimes

ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1e|\x1f|\[ONNX Layer|$)")
DATATYPE = re.compile(r"\b(FP32|FP16|BF16|FP8|Int8|INT8|Int32|INT32|Int64|INT64|Bool|Float|Half|BFloat16)\b")
NAMES = {
    "Float": "FP32", "Half": "FP16", "BFloat16": "BF16", "Int8": "INT8", "Int32": "INT32", "Int64": "INT64",
}  # fmt: skip
REGIONS = frozenset({"Myelin", "kgen", "ForeignNode"})
"""Layer types that are fused regions, whose content TensorRT does not show."""
QUANTIZED = frozenset({"INT8"})
TACTICS = (
    (re.compile(r"imma|_i8|i8i8|int8|dp4a", re.IGNORECASE), "INT8"),
    (re.compile(r"tf32", re.IGNORECASE), "TF32"),
    (re.compile(r"bf16", re.IGNORECASE), "BF16"),
    (re.compile(r"hmma|h884|h1688|h16816|(?<!b)f16|fp16|half", re.IGNORECASE), "FP16"),
    (re.compile(r"f32|fp32|float|sgemm|scudnn|ffma", re.IGNORECASE), "FP32"),
)
"""Precisions by patterns in kernel names, for inspectors that show nothing else (8.6 with dynamic shapes)."""
NO_KERNEL = {
    "Softmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceSum", "Erf",
    "Gelu", "Sigmoid", "Tanh", "TopK", "NonMaxSuppression", "Exp", "Log", "Pow", "Sqrt", "Div", "Resize",
}  # fmt: skip
"""Operators for which TensorRT usually has no INT8 kernel (its developer guide; measured with 8.6)."""


@dataclass(frozen=True, slots=True)
class LayerContext:
    """Facts about a build that explain the precision of a layer. `operators`: node name → operator."""

    operators: Mapping[str, str]
    int8: bool = False
    table: bool = False
    unscaled: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    tuning: KernelTimes | None = None
    measured_anew: bool = True
    """True if every kernel was timed in this build; with a timing cache, some are not timed again."""


def engine_layers(document: Mapping[str, Any], context: LayerContext) -> tuple[EngineLayer, ...]:
    """Return the layers in an inspector's document, which holds only names if the engine keeps no details."""
    found = []
    twins = EqualLayers(document, context.tuning)
    for entry in document.get("Layers", ()):
        if isinstance(entry, str):
            nodes = nodes_in(entry, None, context.operators)
            found.append(EngineLayer(name=entry, nodes=nodes, kind="unknown", precision="unknown"))
            continue
        name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", "unknown"))
        nodes = nodes_in(name, entry.get("Metadata"), context.operators)
        precision, tactic = layer_precision(entry), str(entry.get("TacticName", ""))
        layer = EngineLayer(name=name, nodes=nodes, kind=kind, precision=precision, tactic=tactic)
        found.append(layer.model_copy(update={"reason": not_int8_reason(layer, entry, context, twins)}))
    return tuple(found)


def nodes_in(name: str, metadata: str | None, operators: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ONNX nodes of a layer: from its metadata, else those whose name is part of the layer's name."""
    if metadata is not None:
        return tuple(dict.fromkeys(ONNX_LAYER.findall(metadata)))
    if name.startswith("Reformatting CopyNode"):
        return ()
    parts = set(re.split(r" \+ |PWN\(|\)|, |\(|\|\|", name))
    return tuple(node for node in operators if node in parts)


def layer_precision(entry: Mapping[str, Any]) -> str:
    """Return the precision in which a layer computes: that of its weights, else of its inputs, else of its outputs."""
    if str(entry.get("LayerType")) in REGIONS:
        kinds = {*datatypes(entry, "Inputs"), *datatypes(entry, "Outputs")} & {"FP32", "FP16", "BF16", "FP8", "INT8"}
        return kinds.pop() if len(kinds) == 1 else "mixed"
    weights = entry.get("Weights")
    kind = NAMES.get(str(weights.get("Type")), str(weights.get("Type"))) if isinstance(weights, dict) else None
    if kind is None:
        inputs = datatypes(entry, "Inputs") or datatypes(entry, "Outputs")
        kind = (
            "INT8" if "INT8" in inputs else inputs[0] if inputs else tactic_precision(str(entry.get("TacticName", "")))
        )
    if kind == "FP32" and "tf32" in str(entry.get("TacticName", "")).lower():
        return "TF32"
    return kind


def tactic_precision(name: str) -> str:
    """Return the precision in a kernel's name; `unknown` if there is none."""
    return next((precision for pattern, precision in TACTICS if pattern.search(name)), "unknown")


def datatypes(entry: Mapping[str, Any], side: str) -> list[str]:
    """Return the datatypes of a layer's inputs or outputs."""
    found = [datatype_of(tensor) for tensor in entry.get(side, ()) if isinstance(tensor, Mapping)]
    return [kind for kind in found if kind]


def datatype_of(tensor: Mapping[str, Any]) -> str:
    """Return the datatype of a tensor; empty if the inspector does not say."""
    text = str(tensor.get("DataType") or tensor.get("Datatype") or tensor.get("Format/Datatype", ""))
    match = DATATYPE.search(text)
    return NAMES.get(match[1], match[1]) if match else ""


class EqualLayers:
    """Layers of the same kind and size: TensorRT times one of them and uses its times for the others."""

    def __init__(self, document: Mapping[str, Any], tuning: KernelTimes | None) -> None:
        self._timed: dict[str, str] = {}
        for entry in document.get("Layers", ()):
            if isinstance(entry, Mapping) and tuning is not None and entry.get("Name") in tuning.fastest:
                self._timed.setdefault(layer_signature(entry), str(entry["Name"]))

    def of(self, entry: Mapping[str, Any]) -> str:
        """Return the layer whose times apply to this one; itself if there is no other."""
        return self._timed.get(layer_signature(entry), str(entry.get("Name")))


def layer_signature(entry: Mapping[str, Any]) -> str:
    """Return everything that affects a layer's speed, without names, tactics and the chosen precision."""
    sizes = [[t.get("Dimensions") for t in entry.get(s, ()) if isinstance(t, Mapping)] for s in ("Inputs", "Outputs")]
    own = {"Name", "Inputs", "Outputs", "TacticName", "TacticValue", "Metadata", "Weights", "Bias", "StreamId"}
    return json.dumps([sizes, {k: v for k, v in sorted(entry.items()) if k not in own}], default=str)


def not_int8_reason(
    layer: EngineLayer, entry: Mapping[str, Any], context: LayerContext, twins: EqualLayers
) -> str | None:
    """Return why a layer of an INT8 engine does not compute in INT8; None if it does, or only moves data."""
    if not context.int8 or not layer.computes or layer.precision in QUANTIZED:
        return None
    if excluded := [node for node in layer.nodes if node in context.excluded]:
        return f"excluded: {', '.join(excluded)}"
    tensors = [str(t.get("Name")) for side in ("Inputs", "Outputs") for t in entry.get(side, ()) if isinstance(t, dict)]
    if lacking := [name for name in tensors if name in context.unscaled]:
        return f"no scale: {', '.join(lacking)}"
    if layer.kind in REGIONS:
        return "a region that TensorRT compiles as one; what is inside is not shown"
    tuning = context.tuning
    timed = layer.name if tuning is None or layer.name in tuning.fastest else twins.of(entry)
    if tuning is not None and (times := tuning.summary(timed)):
        if tuning.has_time(timed, "INT8"):
            return f"another path through the network was faster ({times})"
        if context.measured_anew:
            return f"no INT8 kernel fits ({times})"
    if lacking_kernel := sorted({context.operators.get(n, "") for n in layer.nodes} & NO_KERNEL):
        return f"no INT8 kernel for {', '.join(lacking_kernel)}"
    if not context.table:
        return "no Q/DQ around it"
    if not context.measured_anew:
        return "TensorRT chose so by times in its timing cache (--no-timing-cache measures and shows them)"
    return "TensorRT found another precision faster, or has no INT8 kernel for it"
