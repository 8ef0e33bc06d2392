"""The choice between INT8 and float for every operator of a network, by a GPU profile: a minimum cut."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quantkit.gpu_profile.estimate import Estimate, border_costs, estimate_operator
from quantkit.gpu_profile.network_parts import NetworkParts
from quantkit.gpu_profile.profile import GpuProfile
from quantkit.minimum_cut import BorderCost, PrecisionCost, cheapest_split, split_cost


@dataclass(frozen=True, slots=True)
class ProfiledSplit:
    """The cheapest split of a network. slower: operators that are not faster in INT8, with their estimate.

    unknown: operators far from every measurement, which follow the default. fp16, int8, chosen: microseconds of all
    operators that were estimated, with their borders: all float, all INT8, and as chosen. known: the number of
    operators with weights that were estimated.
    """

    slower: Mapping[str, Estimate]
    unknown: frozenset[str]
    known: int
    fp16: float
    int8: float
    chosen: float


def split_network(network: NetworkParts, profile: GpuProfile, wanted: Collection[str] = ()) -> ProfiledSplit:
    """Choose the precision of every part. wanted: parts that are INT8 whatever they take."""
    estimates = {
        name: None if part.size is None else estimate_operator(profile, part.size)
        for name, part in network.parts.items()
    }
    weighted = [name for name, part in network.parts.items() if part.weighted]
    unknown = frozenset(name for name in weighted if estimates[name] is None)
    parts: dict[str, PrecisionCost] = {}
    free: dict[str, PrecisionCost] = {}
    for name, estimate in estimates.items():
        cost = PrecisionCost(estimate.fp16, estimate.int8) if estimate else PrecisionCost(0.0, 0.0)
        free[name] = cost
        parts[name] = PrecisionCost(math.inf, cost.in_int8) if name in unknown or name in wanted else cost
    borders = []
    for tensor in network.tensors:
        if not any(estimates.get(name) for name in (tensor.maker, *tensor.readers) if name):
            continue  # nothing beside it is known, so that its cost decides nothing
        quantize, dequantize = border_costs(profile.borders, tensor.values)
        readers = tuple(sorted(tensor.readers, key=lambda name: name or ""))
        borders.append(BorderCost(tensor.maker, readers, quantize, dequantize))
    int8 = cheapest_split(parts, borders)
    slower = {name: estimate for name in weighted if name not in int8 and (estimate := estimates[name])}
    return ProfiledSplit(
        slower,
        unknown - frozenset(wanted),
        len(weighted) - len(unknown),
        split_cost(free, borders, ()),
        split_cost(free, borders, parts),
        split_cost(free, borders, int8),
    )
