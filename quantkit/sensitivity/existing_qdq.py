"""A Q/DQ model of any tool beside the float network that it was made of.

Layers are matched by their nodes' names. Where the model was repaired (channels equalized or smoothed), the float
network is brought into its scale first: the same function, with the weights that were rounded (`repairs.aligning`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.reader import has_qdq
from quantkit.qdq.removal import remove_qdq
from quantkit.repairs.aligning import aligned
from quantkit.rewrites.fold_batch_norm import fold_batch_norms


@dataclass(frozen=True, slots=True)
class ExistingQdq:
    """The variants of a Q/DQ model, with the weights of the float network, and what is to be said of them."""

    variants: PartialQuantization
    notes: tuple[str, ...]


def read_existing_qdq(plain: Model, quantized: Model) -> ExistingQdq:
    """Put both together. ModelError where the Q/DQ model has no Q/DQ, or was not made of the float one."""
    if not has_qdq(quantized):
        raise ModelError(
            f"{quantized.path} has no QuantizeLinear and no DequantizeLinear",
            remedy="give a Q/DQ model with --against; a float model is looked at with --stats",
        )
    refuse_different_interface(plain, quantized)
    stripped = replace(quantized, proto=remove_qdq(quantized).proto, sha256="")
    keeps = any(node.op_type == "BatchNormalization" for node in stripped.proto.graph.node)
    network = aligned(plain if keeps else replace(plain, proto=fold_batch_norms(plain).proto), stripped)
    variants = PartialQuantization(quantized, network)
    weighted = [layer for layer in variants.layers if layer.weights]
    unmatched = [layer.node for layer in weighted if not layer.matched]
    if len(unmatched) == len(weighted) and weighted:
        raise ModelError(
            f"{quantized.path} was not made of {plain.path}: that has none of its layers, for example {unmatched[0]!r}",
            remedy="give the float model that was quantized",
        )
    notes = []
    if unmatched:
        notes.append(
            f"{len(unmatched)} of {len(weighted)} layers have other names than in the float network, for example "
            f"{unmatched[0]}: the rounding of their weights is not seen where the file holds integers alone"
        )
    notes += [f"{name} is quantized throughout: {why}" for name, why in variants.left.items()]
    return ExistingQdq(variants, tuple(notes))


def refuse_different_interface(plain: Model, quantized: Model) -> None:
    """ModelError where the inputs or outputs of both differ."""
    for what, own, other in (
        ("inputs", [i.describe() for i in plain.inputs], [i.describe() for i in quantized.inputs]),
        ("outputs", list(plain.outputs), list(quantized.outputs)),
    ):
        if sorted(own) != sorted(other):
            raise ModelError(
                f"{quantized.path} was not made of {plain.path}: its {what} are {', '.join(other)}, "
                f"not {', '.join(own)}",
                remedy="give the float model that was quantized",
            )
