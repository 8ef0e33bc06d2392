"""The type of a network that `quantize` will make, which its file is named by."""

from __future__ import annotations

from dataclasses import replace

from quantkit.graph import AnyModel, Model, load_model
from quantkit.qdq.placement import Choices
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.quantize import placement_choices, refuse_quantized
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.values import NetworkType


def planned_type(model: AnyModel, options: QuantizeOptions) -> NetworkType:
    """Return the type of the network that `quantize` will make. UsageError, ModelError."""
    if not options.types.named:
        return options.types.network_type
    source = load_model(model)
    refuse_quantized(source)
    return NetworkType.of(plan_types(source, options).types)


def plan_types(source: Model, options: QuantizeOptions) -> Choices:
    """Return the choices about a float network's nodes, whose types it will have: both only if it does. UsageError."""
    return placement_choices(options, replace(source, proto=fold_batch_norms(source).proto))
