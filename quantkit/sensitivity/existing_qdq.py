"""A Q/DQ model from any tool, together with the float network that it was derived from.

Layers are matched by node name. If channels of the model were equalized or smoothed, the float network is rescaled in
the same way first: it computes the same function, with the weights that were then rounded (`repairs.aligning`). What
`quantize` divided is divided there as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.removal import remove_qdq
from quantkit.repairs.aligning import align_factors
from quantkit.rewrites.divided_products import divide_as
from quantkit.rewrites.fold_batch_norm import fold_batch_norms


@dataclass(frozen=True, slots=True)
class ExistingQdq:
    """A Q/DQ model that can be quantized in part, with the weights of its float network, and notes about it."""

    variants: PartialQuantization
    notes: tuple[str, ...]


def read_existing_qdq(plain: Model, quantized: Model) -> ExistingQdq:
    """Match the layers of both models. ModelError if one has no Q/DQ pairs or was not derived from the other."""
    refuse_float(quantized)
    refuse_different_interface(plain, quantized)
    stripped = replace(quantized, proto=remove_qdq(quantized).proto, sha256="")
    keeps = any(node.op_type == "BatchNormalization" for node in stripped.proto.graph.node)
    folded = plain if keeps else replace(plain, proto=fold_batch_norms(plain).proto)
    network = align_factors(divide_as(folded, stripped), stripped)
    variants = PartialQuantization(quantized, network)
    weighted = [layer for layer in variants.layers if layer.weights]
    unmatched = [layer.node for layer in weighted if not layer.matched]
    if len(unmatched) == len(weighted) and weighted:
        raise ModelError(
            f"{quantized.path} was not derived from {plain.path}, which has none of its layers, "
            f"for example {unmatched[0]!r}",
            remedy="give the float model that was quantized",
        )
    notes = []
    if unmatched:
        notes.append(
            f"{len(unmatched)} of {len(weighted)} layers have different names in the float network, for example "
            f"{unmatched[0]}: the rounding error of their weights is not measured if the file stores integers only"
        )
    notes += [f"{name} is always quantized here: {why}" for name, why in variants.left.items()]
    return ExistingQdq(variants, tuple(notes))


def refuse_float(quantized: Model) -> None:
    """Raise ModelError if a model has no Q/DQ pairs."""
    if not has_qdq(quantized):
        raise ModelError(
            f"{quantized.path} has no QuantizeLinear and no DequantizeLinear",
            remedy="give a Q/DQ model with --against; for a float model use --stats",
        )


def refuse_different_interface(plain: Model, quantized: Model) -> None:
    """Raise ModelError if inputs or outputs of the two models differ."""
    for what, own, other in (
        ("inputs", [i.describe() for i in plain.inputs], [i.describe() for i in quantized.inputs]),
        ("outputs", list(plain.outputs), list(quantized.outputs)),
    ):
        if sorted(own) != sorted(other):
            raise ModelError(
                f"{quantized.path} was not derived from {plain.path}: its {what} are {', '.join(other)}, "
                f"not {', '.join(own)}",
                remedy="give the float model that was quantized",
            )
