"""Adaptive rounding: weights to the codes that change a layer's output least, rather than to the nearest.

The codes are those that `quantkit.repairs.code_search` finds for the Gram matrices of the layers' inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model
from quantkit.graph.weight_store import return_freed_memory
from quantkit.progress import Phases
from quantkit.repairs.blas_threads import blas_threads
from quantkit.repairs.code_search import CodeSearch, row_blocks
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.figures import improvement_db
from quantkit.repairs.grams import GramAccumulator
from quantkit.repairs.half_range import BEYOND
from quantkit.repairs.repair import Needs, Observe, Repair, RepairInput, RepairOutcome
from quantkit.repairs.weighted_layers import PatchGeometry, WeightedLayer, weighted_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 4608
"""Most weights in a row: a Gram matrix is K × K, and inverting it takes K³."""
MEMORY = 1 << 27
"""Bytes of Gram matrices that are held at once, unless one has more."""


def round_weights(
    model: Model, observe: Observe, exclude: Collection[str] = (), phase: Phases | None = None
) -> RepairOutcome:
    """Round the weights of all weighted operators but `exclude` (by name, or first output where there is none).

    They lie on their grids max|w|/127 then, so that Q/DQ takes them as they are. observe may be called more than once.
    The outcome's gains compare a node's error with that of nearest rounding, by the Gram matrix of the samples (shrunk
    where they are few). ModelError where a weight is not finite, DataError where an activation is not.
    """
    editor = WeightEditor(model)
    skipped: dict[str, str] = {}
    gains: dict[str, float] = {}
    layers = []
    for layer in weighted_layers(editor, skipped):
        size = layer.rows_shape(editor.shape(editor.weight_of(layer.node, layer.place)))
        if layer.name in exclude:
            skipped[layer.name] = "excluded"
        elif layer.operator == "ConvTranspose" and layer.geometry.groups > 1:
            skipped[layer.name] = "the groups of its weights share their scales"
        elif size[2] > LARGEST:
            skipped[layer.name] = f"it sums over {size[2]} weights, more than {LARGEST}"
        else:
            layers.append((layer, size[0] * size[2] ** 2 * 8))
    phase, parts = phase or Phases(), list(split_by_memory(layers, MEMORY))
    for part in parts:
        phase("round: correlations of inputs")
        grams = collect_grams(part, observe)
        return_freed_memory()  # of the session
        phase("round: weights of layers")
        for layer in part:
            phase.count(len(gains), len(layers))
            gain = round_layer(editor, layer, grams[layer.tensor, layer.geometry])
            if gain is None:
                skipped[layer.name] = BEYOND
            else:
                gains[layer.name] = gain
        del grams  # before there are others
        return_freed_memory()
    return RepairOutcome(editor.finished(), gains, skipped)


def split_by_memory(layers: Sequence[tuple[WeightedLayer, int]], memory: int) -> Iterator[list[WeightedLayer]]:
    """Yield layers, as many at once as there is memory for their Gram matrices."""
    part: list[WeightedLayer] = []
    held: dict[tuple[str, PatchGeometry], int] = {}
    for layer, size in layers:
        key = (layer.tensor, layer.geometry)
        if part and key not in held and sum(held.values()) + size > memory:
            yield part
            part, held = [], {}
        part.append(layer)
        held[key] = size
    if part:
        yield part


def collect_grams(
    layers: Sequence[WeightedLayer], observe: Observe
) -> dict[tuple[str, PatchGeometry], NDArray[np.float64]]:
    """Return the Gram matrices of layers, one for all that read a tensor the same way."""
    sums = {(layer.tensor, layer.geometry): GramAccumulator(layer.geometry) for layer in layers}
    for batch in observe(tuple(dict.fromkeys(tensor for tensor, _ in sums))):
        for (tensor, _), gram in sums.items():
            gram.add(batch[tensor])
    return {key: sums.pop(key).shrunk for key in tuple(sums)}


def round_layer(editor: WeightEditor, layer: WeightedLayer, grams: NDArray[np.float64]) -> float | None:
    """Put a layer's weights on their grid; return the gain in dB, None where the grid exceeds the weight's type.

    In float16 a weight of the grid is rounded by 2⁻¹¹ at most, and the scale that is read from it by 2⁻¹⁰: together
    less than a fifth of a step at ±127, so that Q/DQ finds the same codes.
    """
    weight = editor.values(editor.weight_of(layer.node, layer.place))
    rows, scales = layer.rows(weight), layer.scales(weight)
    grid, energies = np.empty_like(rows), np.zeros(2)
    for group, gram in enumerate(grams):
        with blas_threads(len(gram)):
            found, steps = CodeSearch(gram).codes(rows[group], scales[group]), scales[group]
        for part in row_blocks(rows.shape[1:]):
            grid[group, part] = found.codes[part] * steps[part, None]
        energies += [(each * steps.astype(np.float64) ** 2).sum() for each in (found.nearest, found.energies)]
    node, values = editor.proto.graph.node[layer.node], layer.back(grid, weight.shape)
    if not editor.fits(node, layer.place, values):
        return None
    editor.replace(node, layer.place, values)
    return improvement_db(*energies)


def repair_weights(given: RepairInput) -> RepairOutcome:
    """Round the weights of the operators that will be INT8."""
    assert given.observe is not None, "bug in quantkit: rounding needs data"
    others = given.plan.floats | given.plan.fp8
    done = round_weights(given.network, given.observe, others, given.phase)
    return replace(done, skipped={name: why for name, why in done.skipped.items() if name not in others})


ROUND = Repair(
    "round",
    Needs.DATA,
    summary="weights are rounded so that a layer's output changes least, rather than to the nearest",
    unit="layers' weights rounded",
    basis="on the samples it saw",
    apply=repair_weights,
    rounds_weights=True,
    int8_only="it moves weights along the equal steps of INT8",
)
