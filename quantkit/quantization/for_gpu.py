"""The operators that stay float because a GPU profile says that INT8 is not faster there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.errors import UsageError
from quantkit.gpu_profile.network_parts import network_parts
from quantkit.gpu_profile.profile import GpuProfile, load_profile
from quantkit.gpu_profile.split import ProfiledSplit, split_network
from quantkit.graph import Model
from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.qdq.float_reason import FloatCause, FloatReason
from quantkit.qdq.placement import Choices, Policy, place_pairs
from quantkit.qdq.shared_scales import MOVING_READERS
from quantkit.tensorrt_version import parse_version
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    from quantkit.quantization.options import QuantizeOptions
    from quantkit.statistics import Statistics

NAMED = 3
"""Operators that a note names."""
MORE = 1.001
"""The factor from which on an estimate is more than another: more than rounding."""


@dataclass(frozen=True, slots=True)
class GpuChoices:
    """The choices with what a profile adds to them, and what is said about it."""

    choices: Choices
    notes: tuple[str, ...] = ()


def choose_for_gpu(
    network: Model, scales: Mapping[str, float], choices: Choices, options: QuantizeOptions
) -> GpuChoices:
    """Return the choices for the GPU of a profile; unchanged without one. UsageError.

    scales: tensor → scale; their sizes matter only where a detection head is recognized.
    """
    if options.gpu_profile is None:
        return GpuChoices(choices)
    if choices.policy is Policy.ALL:
        raise UsageError(
            "a GPU profile chooses what is quantized, and --policy all quantizes everything",
            remedy="give one of the two",
        )
    profile = load_profile(options.gpu_profile)
    wires = index_graph(network.proto)
    batch = batch_of(network, options.gpu_batch)
    names = list(dict.fromkeys(name for node in wires.nodes for name in (*node.input, *node.output) if name))
    shapes = shapes_for_inputs(network, names, input_shapes(network, batch))
    parts = network_parts(wires, inputs_of_parts(wires, place_pairs(wires, scales, choices).inputs), shapes)
    split = split_network(parts, profile, choices.include)
    slower = {
        name: FloatReason(
            FloatCause.SLOWER, profile.where, f"about {time.fp16:.1f} µs in FP16, {time.int8:.1f} in INT8"
        )
        for name, time in split.slower.items()
    }
    weighted = sum(part.weighted for part in parts.parts.values())
    return GpuChoices(
        replace(choices, kept={**choices.kept, **slower}), split_notes(split, profile, weighted, batch, options)
    )


def inputs_of_parts(wires: GraphIndex, inputs: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Return node → its inputs with a pair, without what only moves values, which belongs to no part of a network."""
    return {n: places for n, places in inputs.items() if wires.nodes[n].op_type not in MOVING_READERS}


def largest_scales(statistics: Statistics, quantized_type: QuantizedType) -> dict[str, float]:
    """Return tensor → the scale that takes in all of its values."""
    return {name: histogram.amax / quantized_type.largest for name, histogram in statistics.histograms.items()}


def split_notes(
    split: ProfiledSplit, profile: GpuProfile, weighted: int, batch: int, options: QuantizeOptions
) -> tuple[str, ...]:
    """Return what is said about a choice. weighted: operators with weights that could be INT8."""
    where = f"for {profile.where}, batch {batch}"
    if not split.known:
        notes = [f"{where}: the profile chooses nothing, because no operator with weights is near a measured one"]
    else:
        notes = [
            f"{where}: INT8 in {weighted - len(split.slower)} of {weighted} operators with weights, about "
            f"{split.chosen / 1e3:.3f} ms for {'all of them' if split.known == weighted else f'{split.known} of them'} "
            f"(all in FP16 {split.fp16 / 1e3:.3f}, all in INT8 {split.int8 / 1e3:.3f}); "
            "estimated from operators alone, so time it: quantkit bench"
        ]
    if split.chosen > MORE * split.fp16:
        notes.append(
            "by this estimate all in FP16 is faster, because operators stay INT8 that were not measured, or that "
            "--include names"
        )
    if split.unknown:
        shown = ", ".join(sorted(split.unknown)[:NAMED]) + (" …" if len(split.unknown) > NAMED else "")
        several = "operators are" if len(split.unknown) > 1 else "operator is"
        stay = "stay" if len(split.unknown) > 1 else "stays"
        notes.append(f"{len(split.unknown)} {several} far from all that was measured, and {stay} INT8: {shown}")
    if options.tensorrt_version is not None and parse_version(options.tensorrt_version)[0] != profile.major:
        notes.append(f"the profile is of TensorRT {profile.tensorrt}, but the model for {options.tensorrt_version}")
    return tuple(notes)


def batch_of(network: Model, asked: int | None) -> int:
    """Return the batch size that times are for. UsageError where the network has another one."""
    fixed = {i.fixed_batch for i in network.inputs if i.fixed_batch is not None}
    if asked is not None and fixed and asked not in fixed:
        raise UsageError(
            f"the batch size of the model is {min(fixed)}, not {asked}",
            remedy="leave out --for-batch, or export the model again",
        )
    return asked or min(fixed, default=1)


def input_shapes(network: Model, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs for a batch, as far as they are fixed otherwise."""
    shapes = {}
    for i in network.inputs:
        sizes = [batch if k == i.batch_axis and not isinstance(size, int) else size for k, size in enumerate(i.shape)]
        if whole := [size for size in sizes if isinstance(size, int)]:
            shapes.update({i.name: tuple(whole)} if len(whole) == len(sizes) else {})
    return shapes
