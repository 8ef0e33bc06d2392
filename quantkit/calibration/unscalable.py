"""Tensors that no scale can represent: NaN, Inf, a value at the limit of its type, and mask values before a Softmax.

They matter only where INT8 needs the scale. There, a pass ends with an error; elsewhere, the tensor gets no scale, so
that TensorRT leaves its layers in float, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NoReturn

import numpy as np

from quantkit.errors import DataError
from quantkit.graph import Model
from quantkit.graph.index import index_graph
from quantkit.graph.masked_scores import masked_scores
from quantkit.qdq.placement import Choices, place_pairs
from quantkit.statistics import Statistics
from quantkit.values import Array

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

    def check(self, tensor: str, values: Array, names: Sequence[str]) -> None:
        """Raise DataError if INT8 needs the scale of a tensor whose `values`, of the samples `names`, have none."""
        if tensor in self.layers:
            self._refuse(tensor, values, names)

    def _refuse(self, tensor: str, values: Array, names: Sequence[str]) -> NoReturn:
        layers = self.layers[tensor]
        where, held = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}", values
        if values.ndim and len(values) == len(names) > 1:
            rows = np.abs(values.reshape(len(values), -1).astype(np.float64)).max(axis=1)
            first = int(np.argmax(~np.isfinite(rows))) if not np.isfinite(rows).all() else int(np.argmax(rows))
            where, held = names[first], values[first]
        what = f"{held.flat[np.abs(held).argmax()]:.3g}, as overflows and masks are"
        what = what if np.isfinite(held).all() else "NaN or Inf"
        more = f" and {len(layers) - SHOWN} more layers" if len(layers) > SHOWN else ""
        keep = " ".join(f"--exclude {name!r}" for name in layers)
        raise DataError(
            f"tensor {tensor!r} holds {what} in {where}, and INT8 of {', '.join(layers[:SHOWN])}{more} needs its scale",
            remedy=f"remove that sample or fix the network, or keep what reads the tensor in float: {keep}",
        )


def leave_out_masks(statistics: Statistics, model: Model, needs: ScaleNeeds) -> Statistics:
    """Return the statistics without scores that are masked by large negative numbers, where nothing needs the scale."""
    low = [name for name, histogram in statistics.histograms.items() if histogram.minimum <= MASK]
    if not low:
        return statistics
    masked = masked_scores(index_graph(model.proto))
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
