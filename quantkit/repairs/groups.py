"""The group of a tensor: everything that has to be scaled with it, found by walking the graph both ways."""

from __future__ import annotations

from quantkit.repairs.linking import Group, Layout, Network, Step
from quantkit.repairs.operators import step_of


def group_of(network: Network, tensor: str, layout: Layout) -> Group:
    """The group of a tensor, with the reason where its channels cannot be scaled."""
    group, waiting = Group(), [(tensor, layout)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        name, where = waiting.pop()
        if name in group.tensors:
            if group.tensors[name] != where:
                group.reason = group.reason or f"{name} holds the channels in two ways"
            continue
        group.tensors[name] = where
        for step in around(network, name, where, seen):
            group.reason = group.reason or step.reason
            group.ends.extend(step.ends)
            waiting.extend(step.tensors.items())
    return group


def around(network: Network, name: str, where: Layout, seen: set[tuple[int, int]]) -> list[Step]:
    """What the maker and the readers of a tensor do to its group; each is asked once."""
    steps = [Step(reason=f"{name}: {network.fixed[name]}")] if name in network.fixed else []
    maker = network.makers.get(name)
    if maker is None:
        return [*steps, Step(reason=f"{name}: it is an input of the network")]
    for number, place in [(maker, -1), *network.readers.get(name, [])]:
        if (number, place) in seen:
            continue
        seen.add((number, place))
        node = network.nodes[number]
        reason = f"{node.op_type} {node.output[0]} does not pass on a factor per channel"
        steps.append(step_of(network, number, place, where) or Step(reason=reason))
    return steps
