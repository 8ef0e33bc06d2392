"""Tensors that no scale can represent: NaN, Inf, a value at the limit of its type, and mask values before a Softmax.

They matter only where INT8 needs the scale. There, a pass ends with an error; elsewhere, the tensor gets no scale, so
that TensorRT leaves its layers in float, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from quantkit.errors import DataError
from quantkit.graph import Model
from quantkit.graph.index import index_graph
from quantkit.graph.masked_scores import masked_scores
from quantkit.qdq.placement import Choices, place_pairs
from quantkit.statistics import Statistics
from quantkit.values import Array, Batch

MASK = -5e3
"""Scores below this are masked: common masks begin at −10⁴, a score is added to them, and e^x is 0 in every type."""
SHOWN = 3


class ScaleNeeds:
    """The tensors whose scale INT8 needs, found from the graph when they are first asked for."""

    def __init__(self, model: Model, watched: Sequence[str], excluded: frozenset[str]) -> None:
        self._model, self._watched, self._excluded = model, watched, excluded

    @cached_property
    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Tensor → the layers that read it in INT8, or read one that takes its scale."""
        wires = index_graph(self._model.proto)
        placement = place_pairs(wires, dict.fromkeys(self._watched, 1.0), Choices(exclude=self._excluded))
        found: dict[str, dict[str, None]] = {}
        for number, places in placement.inputs.items():
            for tensor in (wires.nodes[number].input[k] for k in places):
                for needed in (tensor, placement.scale_of.get(tensor, tensor)):
                    found.setdefault(needed, {})[wires.name(number)] = None
        return {tensor: tuple(layers) for tensor, layers in found.items()}

    def check(self, tensors: Batch, names: Sequence[str]) -> None:
        """Raise DataError if INT8 needs the scale of one of `tensors`, whose values for the samples `names` have none.

        The error is about the first; its remedy keeps in float what reads any of them.
        """
        needed = [tensor for tensor in tensors if tensor in self.layers]
        if not needed:
            return
        where, values = sample_without_scale(tensors[needed[0]], names)
        what = "NaN or Inf"
        if np.isfinite(values).all():
            what = f"{values.flat[np.abs(values).argmax()]:.3g}, as overflows and masks are,"
        layers = self.layers[needed[0]]
        more = f" and {len(layers) - SHOWN} more layers" if len(layers) > SHOWN else ""
        keep = dict.fromkeys(layer for tensor in needed for layer in self.layers[tensor])
        raise DataError(
            f"tensor {needed[0]!r} holds {what} in {where}, and INT8 of {', '.join(layers[:SHOWN])}{more} needs its "
            "scale",
            remedy="remove that sample or fix the network, or keep what depends on the tensor in float: "
            + " ".join(f"--exclude {layer!r}" for layer in keep),
        )


def sample_without_scale(values: Array, names: Sequence[str]) -> tuple[str, Array]:
    """Return the first sample that holds NaN or Inf, else that of the largest value; all if axis 0 is not the batch."""
    if not values.ndim or len(values) != len(names):
        return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}", values
    most = np.abs(values.reshape(len(values), -1).astype(np.float64)).max(axis=1)
    index = int(np.argmin(np.isfinite(most)) if not np.isfinite(most).all() else np.argmax(most))
    return names[index], values[index]


def leave_out_masks(statistics: Statistics, model: Model, needs: ScaleNeeds) -> Statistics:
    """Return the statistics without scores that are masked by large negative numbers, where nothing needs the scale."""
    low = [name for name, histogram in statistics.histograms.items() if histogram.minimum <= MASK]
    if not low:
        return statistics
    masked = masked_scores(model.proto.graph)
    gone = [name for name in low if name in masked and name not in needs.layers]
    return statistics.without(gone) if gone else statistics


def describe_unscalable(statistics: Statistics) -> tuple[str, ...]:
    """Return one note about all tensors without a scale; empty if there are none."""
    names = statistics.unscalable
    if not names:
        return ()
    shown = ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
    subject = "1 tensor holds" if len(names) == 1 else f"{len(names)} tensors hold"
    gets = "gets" if len(names) == 1 else "get"
    return (f"{subject} NaN, Inf or mask values and {gets} no scale, which INT8 does not need there: {shown}",)
