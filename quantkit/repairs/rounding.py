"""Adaptive rounding: weights to the codes that change a layer's output least, rather than to the nearest.

Rounding a row w of weights to ŵ = scale·q changes an output by (ŵ − w)·x. Over the data its energy is

    E = (ŵ − w)ᵀ H (ŵ − w)        H = Σ x xᵀ, the Gram matrix of the layer's input [K, K] (patches for a convolution)

Nearest rounding minimises it only where H is diagonal. Three steps, all rows at once:

    compensate     columns in the order of falling H_kk; its error is compensated by those after it (GPTQ)
    choose         row by row, the better of that and nearest rounding
    descend        sweeps over the columns: move a code by ±1 where that lowers E, exactly

Codes stay in −127 … 127 and within ±2 of the nearest, and a row's largest weight keeps the code ±127, so that the row's
scale max|w|/127 reads the same from ŵ. E is therefore never larger than nearest rounding's.

Source: Frantar et al. 2022, "GPTQ" (arXiv 2210.17323) for the first step; coordinate descent is exact for a quadratic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model
from quantkit.graph.weight_store import return_freed_memory
from quantkit.numerics import LEVELS
from quantkit.progress import Phases
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.figures import improvement_db
from quantkit.repairs.grams import GramAccumulator
from quantkit.repairs.half_range import BEYOND
from quantkit.repairs.repair import Needs, Observe, Repair, RepairInput, RepairOutcome
from quantkit.repairs.triangular import factorise, invert_lower
from quantkit.repairs.weighted_layers import PatchGeometry, WeightedLayer, weighted_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 4608
"""Most weights in a row: a Gram matrix is K × K, and inverting it takes K³."""
MEMORY = 1 << 27
"""Bytes of Gram matrices that are held at once, unless one has more."""
VALUES = 1 << 20
"""Weights that are rounded at once: about twelve figures of 8 bytes are held of each."""

REACH = 2
"""Codes up to this far from the nearest are tried."""
DAMPING = 0.01
"""Fraction of the mean diagonal that is added before the matrix is inverted (GPTQ's)."""
SWEEPS = 8
BLOCK = 64
"""Columns whose compensation is gathered before it is applied to the rest (GPTQ's lazy batches)."""


def find_codes(
    weight: NDArray[np.floating], scales: NDArray[np.floating], gram: NDArray[np.floating]
) -> NDArray[np.int8]:
    """Return codes int8 [O, K] of `weight` [O, K] on the grids `scales` [O], for inputs with Gram matrix `gram` [K, K].

    gram: symmetric and positive semidefinite; its unit does not matter.
    """
    return RowRounding(gram).codes(weight, scales)


class RowRounding:
    """The rounding of rows that meet the same inputs. gram: as for `find_codes`."""

    def __init__(self, gram: NDArray[np.floating]) -> None:
        self.gram = np.asarray(gram, np.float64)
        self._order = np.argsort(-np.diag(self.gram), kind="stable")
        self._inverse = inverse_cholesky(self.gram, self._order)

    def codes(self, weight: NDArray[np.floating], scales: NDArray[np.floating]) -> NDArray[np.int8]:
        """Return the codes of rows, int8 [O, K], on the grids `scales` [O]."""
        found = np.empty(np.shape(weight), np.int8)
        for part in row_blocks(found.shape):
            found[part] = self._block(np.asarray(weight)[part], np.asarray(scales)[part])
        return found

    def _block(self, weight: NDArray[np.floating], scales: NDArray[np.floating]) -> NDArray[np.float64]:
        target = np.asarray(weight, np.float64) / np.asarray(scales, np.float64)[:, None]
        nearest = np.clip(np.rint(target), -LEVELS, LEVELS)
        least, most = code_limits(target, nearest)
        codes = self._compensated(target, least, most)
        worse = row_energies(codes - target, self.gram) >= row_energies(nearest - target, self.gram)
        codes[worse] = nearest[worse]
        codes = descend_coordinates(codes, target, self.gram, least, most)
        worse = row_energies(codes - target, self.gram) > row_energies(nearest - target, self.gram)
        codes[worse] = nearest[worse]
        return codes

    def _compensated(
        self, target: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Round by GPTQ: column by column, the error of each spread over the columns that follow."""
        inverse, order = self._inverse, self._order
        if inverse is None:
            return np.clip(np.rint(target), least, most)
        left, codes = target[:, order], np.empty_like(target)
        low, high = least[:, order], most[:, order]
        columns = left.shape[1]
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            errors = np.empty((len(left), stop - start))
            for k in range(start, stop):
                codes[:, k] = np.clip(np.rint(left[:, k]), low[:, k], high[:, k])
                errors[:, k - start] = (left[:, k] - codes[:, k]) / inverse[k, k]
                left[:, k:stop] -= np.outer(errors[:, k - start], inverse[k, k:stop])
            left[:, stop:] -= errors @ inverse[start:stop, stop:]
        back = np.empty_like(codes)
        back[:, order] = codes
        return back


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of a matrix, as many at once as memory is meant for."""
    rows = max(1, VALUES // max(shape[1], 1))
    yield from (slice(start, start + rows) for start in range(0, shape[0], rows))


def row_energies(error: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return eᵀ H e of every row."""
    values: NDArray[np.float64] = np.einsum("ok,ok->o", error @ gram, error)
    return values


def code_limits(
    target: NDArray[np.float64], nearest: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest code allowed for every weight."""
    size = np.abs(target)
    peak = (size >= size.max(axis=1, initial=0.0, keepdims=True)) & (np.abs(nearest) == LEVELS)
    reach = np.where(peak, 0, REACH)
    return np.maximum(nearest - reach, -LEVELS), np.minimum(nearest + reach, LEVELS)


def inverse_cholesky(gram: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Return the upper Cholesky factor of H⁻¹, H damped and its columns in an order; None if H is zero."""
    mean = float(np.diag(gram).mean()) if len(gram) else 0.0
    if mean <= 0.0:
        return None
    # H = L·Lᵀ with rows and columns reversed gives H⁻¹ = Uᵀ·U for U = L⁻¹ reversed back: one factorisation.
    factor: NDArray[np.float64] = gram[np.ix_(order[::-1], order[::-1])]
    factor[np.diag_indices_from(factor)] += DAMPING * mean
    factorise(factor)
    invert_lower(factor)
    return factor[::-1, ::-1]


def descend_coordinates(
    codes: NDArray[np.float64],
    target: NDArray[np.float64],
    gram: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Move every code to the best value given the others, column by column, until nothing moves (coordinate descent).

    With g = H·e the energy changes by 2·δ·g_k + δ²·H_kk for a move δ of code k: best is −g_k/H_kk, rounded.
    """
    codes = codes.copy()
    diagonal = np.diag(gram)
    order = np.flatnonzero(diagonal > 0)
    slope = (codes - target) @ gram
    for _ in range(SWEEPS):
        moved = 0
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            inner = slope[:, block]
            local = gram[np.ix_(block, block)]
            moves = np.zeros_like(inner)
            for j, k in enumerate(block):
                wanted = np.rint(-inner[:, j] / diagonal[k])
                move = np.clip(codes[:, k] + wanted, least[:, k], most[:, k]) - codes[:, k]
                rows = np.flatnonzero(move)
                if rows.size:
                    codes[rows, k] += move[rows]
                    moves[rows, j] = move[rows]
                    inner[rows] += np.outer(move[rows], local[j])
            changed = np.flatnonzero(moves.any(axis=1))
            if changed.size:
                slope[changed] += moves[changed] @ gram[block]
                moved += changed.size
        if not moved:
            break
    return codes


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
        rounding = RowRounding(gram)
        for part in row_blocks(rows.shape[1:]):
            exact, steps = rows[group, part], scales[group, part]
            grid[group, part] = rounding.codes(exact, steps) * steps[:, None]
            nearest = np.clip(np.rint(exact / steps[:, None]), -LEVELS, LEVELS) * steps[:, None]
            for k, values in enumerate((nearest, grid[group, part])):
                energies[k] += row_energies((values - exact).astype(np.float64), gram).sum()
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
