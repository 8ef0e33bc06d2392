"""map: a network as a drawn graph in one HTML file, with what is known about the quantization of every operator."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.artifact import check_destinations, text_bytes, write_all
from quantkit.errors import ModelError
from quantkit.graph import Model, load_model
from quantkit.keywords.option_fields import takes_fields
from quantkit.mapping.difference import MapDifference, compare_maps
from quantkit.mapping.facts import card_facts
from quantkit.mapping.folding import FoldItem, fold_repeats
from quantkit.mapping.layout import require_layout
from quantkit.mapping.live import with_compiled
from quantkit.mapping.operator_graph import CardKind, OperatorGraph, card_forms, operator_graph
from quantkit.mapping.options import MapFields, MapOptions
from quantkit.mapping.page import map_page, refuse_large_network
from quantkit.mapping.result import NetworkMap
from quantkit.mapping.sources import MapSources, identities, read_sources, sort_files
from quantkit.paths import AnyPath, given_list
from quantkit.rules import Rule
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_fields(MapOptions)
def network_map(
    model: AnyPath | Model,
    output: AnyPath | None = None,
    *,
    against: AnyPath | Sequence[AnyPath] = (),
    options: MapOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
    **_: Unpack[MapFields],
) -> NetworkMap:
    """Draw a network: write the map to `output` as one HTML file, and return its facts.

    model: float or with Q/DQ. against: another Q/DQ model, an engine, or other sources, with which the map is compared.
    The other keywords are fields of `MapOptions`: statistics, the result of `layers`, an engine with a profile, a
    compiled network; each of this network. phase: called with a description of each phase.

    Raises ModelError, StaleError (a source of another network), the errors of the sources' readers, BackendError (the
    library that lays out maps is not installed), OutputError, UsageError.
    """
    options = checked_options(options, MapOptions)
    rule, files = options.chosen_rule(), options.files()
    others = given_list(against, "against")
    path = None if output is None else Path(output)
    may_replace = None
    if path is not None:
        require_layout()
        read = (model.path if isinstance(model, Model) else model, *files.paths, *others)
        may_replace = check_destinations([path], read=read, force=options.force)
    phase("reading the model")
    own = model if isinstance(model, Model) else load_model(model)
    graph = operator_graph(own)
    if path is not None:
        refuse_large_network(graph, own.path)
    if options.compile_for is not None:
        files = with_compiled(files, own, options.compile_for, options.shapes, phase)
    phase("collecting facts")
    made = map_of(own, read_sources(files, [own], rule), graph, fold=options.fold)
    if others:
        made = replace(made, difference=difference_from(made, own, others, rule))
    if path is None or may_replace is None:
        return made
    phase("drawing")
    write_all({path: text_bytes(map_page(made))}, may_replace=may_replace)
    return replace(made, path=path)


def map_of(model: Model, sources: MapSources, graph: OperatorGraph | None = None, *, fold: bool = True) -> NetworkMap:
    """Return the map of a model with what its sources say. graph: its cards, if they are known already."""
    graph = graph or operator_graph(model)
    items: tuple[FoldItem, ...] = tuple(range(len(graph.cards)))
    return NetworkMap(
        model=model.path.name,
        sha256=model.sha256,
        cards=graph.cards,
        facts=card_facts(model, graph, sources),
        members=member_names(graph),
        edges=graph.edges,
        items=fold_repeats(card_forms(graph)) if fold else items,
        described=sources.described,
    )


def member_names(graph: OperatorGraph) -> tuple[tuple[str, ...], ...]:
    """Return the names of the other nodes in each card."""
    return tuple(tuple(graph.wiring.name(number) for number in card.members) for card in graph.cards)


def difference_from(first: NetworkMap, model: Model, others: Sequence[AnyPath], rule: Rule) -> MapDifference:
    """Return how another network, or the same one by other sources, differs. ModelError if it has other nodes alone."""
    path, files = sort_files(others)
    second = model if path is None else load_model(path)
    read = read_sources(files, [second] if path is None else [second, model], rule)
    other = map_of(second, read, fold=False)
    shared = {card.name for card in first.cards if card.kind is CardKind.OPERATOR} & {card.name for card in other.cards}
    if path is not None and not shared and not identities([model]) & identities([second]):
        raise ModelError(
            f"{path} has no operator of {model.path}",
            remedy="compare with a model that was made from the same network",
        )
    changes = compare_maps(zip(first.cards, first.facts, strict=True), zip(other.cards, other.facts, strict=True))
    name = second.path.name if path is not None else os.path.basename(os.fspath(others[0]))
    return MapDifference(name, other.described, changes)
