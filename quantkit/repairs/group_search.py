"""The group of a tensor: everything that has to be scaled with it, found by walking the graph both ways."""

from __future__ import annotations

from quantkit.repairs.group_steps import group_step
from quantkit.repairs.linking import ChannelGroup, ChannelLayout, GroupStep, Network


def find_group(network: Network, tensor: str, layout: ChannelLayout) -> ChannelGroup:
    """Return the group of a tensor, with the reason if its channels cannot be scaled."""
    group, waiting = ChannelGroup(), [(tensor, layout)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        name, where = waiting.pop()
        if name in group.tensors:
            if group.tensors[name] != where:
                group.reason = group.reason or f"{name} holds the channels in two ways"
            continue
        group.tensors[name] = where
        for step in neighbour_steps(network, name, where, seen):
            group.reason = group.reason or step.reason
            group.ends.extend(step.ends)
            waiting.extend(step.tensors.items())
    return group


def neighbour_steps(network: Network, name: str, where: ChannelLayout, seen: set[tuple[int, int]]) -> list[GroupStep]:
    """Return the effects of the maker and the readers of a tensor on its group, each once."""
    fixed = network.fixed_reason(name)
    steps = [GroupStep(reason=f"{name}: {fixed}")] if fixed else []
    maker = network.index.makers.get(name)
    if maker is None:
        return [*steps, GroupStep(reason=f"{name}: it is an input of the network")]
    uses = [(reader.number, reader.place) for reader in network.index.readers.get(name, ())]
    for number, place in [(maker, -1), *uses]:
        if (number, place) in seen:
            continue
        seen.add((number, place))
        node = network.nodes[number]
        reason = f"{node.op_type} {node.output[0]} does not pass on a factor per channel"
        steps.append(group_step(network, number, place, where) or GroupStep(reason=reason))
    return steps
