"""Bias correction: rounded weights shift the mean of what a layer computes; the bias compensates for it.

With x of mean E[x_c] per input channel, rounding W to Ŵ adds on average

    E[Δy_o] = Σ_c Σ_k (Ŵ − W)[o, c, k] · E[x_c] · p_k

to output channel o, which is subtracted from the bias. p_k is the fraction of output positions at which tap k reads the
input rather than padding; it is 1 if the input's size is unknown (nearly right: padding is a thin border). The mean of
x is taken over all positions, which is an approximation if borders differ from the rest.

Source: Nagel et al. 2019 (arXiv 1906.04721) §4.2, with measured means instead of those of batch normalization.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import UsageError
from quantkit.graph.model import Model
from quantkit.graph.operators import RESHAPING
from quantkit.graph.shape_inference import infer_types, tensor_shapes
from quantkit.numerics import LEVELS, round_to_e4m3
from quantkit.repairs.code_search import row_blocks
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.figures import ChannelFigures, channel_figures, improvement_db
from quantkit.repairs.grams import same_pads
from quantkit.repairs.group_steps import attribute
from quantkit.repairs.half_range import BEYOND
from quantkit.repairs.linking import Shape
from quantkit.repairs.repair import Needs, Repair, RepairInput, RepairOutcome
from quantkit.repairs.weighted_layers import PatchGeometry, WeightedLayer, weighted_layers
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from quantkit.values import Array


def correct_biases(
    model: Model,
    channels: Mapping[str, ChannelFigures],
    reference: Model | None = None,
    exclude: Collection[str] = (),
    fp8: Collection[str] = (),
) -> RepairOutcome:
    """Correct the biases of `model` for the rounding of its weights to their grids max|w|/127, in FP8 max|w|/448.

    channels: tensor → figures, of which means and squares are used. reference: the network before its weights were
    changed, for example by adaptive rounding; nodes are matched by name. exclude: nodes that stay float. fp8: nodes
    that are FP8, all others are INT8. The outcome's gains, by node, are the predicted decrease of the error that its
    weights cause.

    ModelError where a weight is not finite, UsageError where the reference is another network.
    """
    editor = WeightEditor(model)
    sizes = tensor_shapes(infer_types(editor.proto).graph)
    origin = WeightEditor(reference) if reference is not None else None
    skipped: dict[str, str] = {}
    before = {layer.name: layer for layer in weighted_layers(origin, {})} if origin else {}
    shifts: dict[str, Array] = {}
    gains: dict[str, float] = {}
    for layer in list(weighted_layers(editor, skipped)):
        figures = channels.get(layer.tensor)
        place = locate_bias(editor, layer, sizes)
        reason = correction_obstacle(layer, figures, exclude) or (place if isinstance(place, str) else None)
        if reason or figures is None or isinstance(place, str):
            skipped[layer.name] = reason or ""
            continue
        quantized_type = QuantizedType.FP8 if layer.name in fp8 else QuantizedType.INT8
        moments = column_moments(layer, figures, sizes.get(layer.tensor, ()))
        shift, spread = error_moments(grid_errors(editor, layer, origin, before, quantized_type), *moments)
        added = add_to_bias(editor, layer, place, shift)
        if added is None:
            skipped[layer.name] = BEYOND
            continue
        mean = float((shift**2).sum())
        gains[layer.name] = improvement_db(spread + mean, spread) if spread > 0 else 0.0
        shifts[layer.name] = added
    return RepairOutcome(editor.finished(), gains, skipped, shifts)


def correction_obstacle(layer: WeightedLayer, figures: ChannelFigures | None, exclude: Collection[str]) -> str | None:
    """Return why a layer is not corrected."""
    if layer.name in exclude:
        return "excluded"
    if figures is None:
        return f"no statistics of {layer.tensor}"
    if layer.operator == "ConvTranspose":
        return "the taps of a ConvTranspose reach different places, one bias cannot correct them"
    return (
        "its weights are on the left: its outputs are no channels"
        if layer.operator != "Conv" and layer.place == 0
        else None
    )


@dataclass(frozen=True, slots=True)
class BiasPlace:
    """The constant that is added to what a layer computes: input `place` of `node`. sign: −1 where it is subtracted, or
    the layer's result is subtracted from it."""

    node: onnx.NodeProto
    place: int
    sign: int = 1


def locate_bias(editor: WeightEditor, layer: WeightedLayer, sizes: Mapping[str, Shape]) -> BiasPlace | str:
    """Return the place of a layer's bias, or a text why there is none to correct. sizes: tensor → shape.

    The bias of a MatMul is the constant that is added to its result or subtracted, on either side and of any shape:
    [N], [1, N], one number, one for each position. The result may have been reshaped where its channels stay,
    or cast to another float.
    """
    node = editor.proto.graph.node[layer.node]
    if layer.operator != "MatMul":
        name = node.input[2] if len(node.input) > 2 else ""
        known = not name or editor.constant(name)
        scaled = layer.operator == "Gemm" and name and not attribute(node, "beta", 1.0)
        return BiasPlace(node, 2) if known and not scaled else "its bias is not known"
    channels = layer.rows_shape(editor.shape(node.input[layer.place]))[1]
    tensor = node.output[0]
    while True:
        readers = [reader for reader in editor.proto.graph.node if tensor in reader.input]
        if editor.reads(tensor) != 1 or len(readers) != 1:
            return "no Add of a constant follows it"
        reader = readers[0]
        long = (sizes.get(reader.output[0]) or (None,))[-1]
        if reader.op_type not in ("Identity", "Cast") and (reader.op_type not in RESHAPING or long != channels):
            break
        tensor = reader.output[0]
    place = 1 - list(reader.input).index(tensor)
    if reader.op_type not in ("Add", "Sub") or not editor.constant(reader.input[place]):
        return "no Add of a constant follows it"
    return BiasPlace(reader, place, 1 if reader.op_type == "Add" else -1)


def grid_errors(
    editor: WeightEditor,
    layer: WeightedLayer,
    origin: WeightEditor | None,
    before: Mapping[str, WeightedLayer],
    quantized_type: QuantizedType,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield Ŵ − W in blocks of rows: the group, and the weight on its grid minus the original [rows, K]."""
    weight = editor.values(editor.weight_of(layer.node, layer.place))
    rows, scales = layer.rows(weight), layer.scales(weight)
    exact = rows if origin is None else original_rows(layer, origin, before, weight.shape)
    for group in range(len(rows)):
        for part in row_blocks(rows.shape[1:]):
            values = rows[group, part].astype(np.float64)
            steps = scales[group, part, None].astype(np.float64)
            if quantized_type is QuantizedType.FP8:
                steps = steps * LEVELS / quantized_type.largest
                grid = round_to_e4m3(values / steps).astype(np.float64) * steps
            else:
                grid = np.clip(np.rint(values / steps), -LEVELS, LEVELS) * steps
            yield group, grid - exact[group, part]


def original_rows(
    layer: WeightedLayer, origin: WeightEditor, before: Mapping[str, WeightedLayer], shape: tuple[int, ...]
) -> Array:
    """Return the rows of a layer's weight before it was changed. UsageError where the reference has none of `shape`."""
    match = before.get(layer.name)
    was = origin.values(origin.weight_of(match.node, match.place)) if match else None
    if match is None or was is None or was.shape != shape:
        raise UsageError(
            f"the reference has no node {layer.name!r} with weights of shape {list(shape)}",
            remedy="give the same network as it was before its weights were changed",
        )
    return match.rows(was)


def error_moments(
    errors: Iterable[tuple[int, NDArray[np.float64]]], means: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the shift [O] that makes up for the mean of errors, and the energy of what remains.

    means, squares: of the inputs [G, K]; they count as independent of each other.
    """
    shifts: list[NDArray[np.float64]] = []
    spread = 0.0
    deviations = np.maximum(squares - means**2, 0.0)
    for group, error in errors:
        shifts.append(-(error @ means[group]))
        spread += float((error**2 @ deviations[group]).sum())
    return np.concatenate(shifts), spread


def column_moments(
    layer: WeightedLayer, figures: ChannelFigures, shape: Shape
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and mean square [G, K] of the input of each column of the rows; padding counts if sizes are known."""
    geometry = layer.geometry
    inside = inside_shares(geometry, shape[2:])
    taps = inside.size
    means = np.repeat(figures.mean.reshape(geometry.groups, -1), taps, axis=1)
    squares = np.repeat(figures.square.reshape(geometry.groups, -1), taps, axis=1)
    shares = np.tile(inside.reshape(-1), means.shape[1] // taps)
    return means * shares, squares * shares


def inside_shares(geometry: PatchGeometry, size: Shape) -> NDArray[np.float64]:
    """Return the fraction of output positions at which each tap of a kernel reads the input, in the kernel's shape."""
    shares = np.ones((1,) * len(geometry.kernel))
    for k, taps in enumerate(geometry.kernel):
        long = size[k] if k < len(size) else None
        reach, stride = (taps - 1) * geometry.dilations[k] + 1, geometry.strides[k]
        each = np.ones(taps)
        if long is not None:
            begin, end = geometry.pads[k], geometry.pads[k + len(geometry.kernel)]
            if geometry.same:
                begin, end = same_pads(long, reach, stride, geometry.same)
            starts = np.arange(0, max(long + begin + end - reach, 0) + 1, stride) - begin
            places = starts[:, None] + geometry.dilations[k] * np.arange(taps)
            each = ((places >= 0) & (places < long)).mean(axis=0)
        shares = shares * each.reshape(-1, *(1,) * (len(geometry.kernel) - 1 - k))
    return shares


def add_to_bias(
    editor: WeightEditor, layer: WeightedLayer, where: BiasPlace, shift: NDArray[np.float64]
) -> Array | None:
    """Add a shift [O] to the bias; return what was added, in the scale of the bias; None if its type lacks the sum."""
    node, place = where.node, where.place
    if layer.operator == "Gemm":
        old = len(node.input) > 2 and node.input[2]
        shift = shift * attribute(node, "alpha", 1.0) / (attribute(node, "beta", 1.0) if old else 1.0)
    name = node.input[place] if place < len(node.input) else ""
    bias = (editor.values(name) if name else np.zeros(len(shift), np.float32)) + where.sign * shift
    if not editor.fits(node, place, bias):
        return None
    if layer.operator == "Gemm" and not name:
        editor.set_attribute(node, "beta", 1.0)
    editor.replace(node, place, bias)
    return shift


def repair_biases(given: RepairInput) -> RepairOutcome:
    """Correct the biases of the operators that will be quantized."""
    figures = channel_figures(given.statistics)
    done = correct_biases(given.network, figures, given.unrounded, given.plan.floats, given.plan.fp8)
    return replace(done, skipped=given.without_floats(done.skipped))


BIAS = Repair(
    "bias",
    Needs.STATISTICS,
    summary="biases lose the mean shift that rounded weights cause",
    unit="biases corrected",
    basis="predicted",
    apply=repair_biases,
)
