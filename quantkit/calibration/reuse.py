"""Reuse of existing outputs: they are reused if they are what would be made, and otherwise refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.artifact import Digest
from quantkit.backends.session import TENSORRT
from quantkit.calibration.recorded_table import RecordedTable, read_recorded_table
from quantkit.calibration.tables import statistics_path
from quantkit.data import DataIdentity, Feed
from quantkit.data.feed import Identifier, portion_digests
from quantkit.errors import StaleError
from quantkit.histogram import HistogramMode
from quantkit.paths import exists
from quantkit.provenance import Provenance, backend_kind
from quantkit.rules import Rule
from quantkit.statistics import Statistics, read_statistics
from quantkit.table import Header

REMEDY = "another --output keeps both; --force replaces it"


@dataclass(frozen=True, slots=True)
class TableRequest:
    """Everything that a table depends on, by the name that the user knows it by."""

    parts: Mapping[str, Any]
    headers: Mapping[str, Header]

    def for_rule(self, rule: Rule) -> dict[str, Any]:
        """Return the parts of one rule's table."""
        return {**self.parts, "rule": rule.name, "header": self.headers[rule.name].text}


def recorded_parts(provenance: Provenance) -> dict[str, Any]:
    """Return the same parts from the provenance record of a table."""
    data, run = provenance.data, provenance.run
    ordered = run is not None and run.histogram is HistogramMode.TENSORRT
    return {
        "model": Digest(provenance.model.sha256),
        "data": data and Digest(data.content),
        "samples": data and data.chosen,
        "order of the data": Digest(data.order) if ordered and data and data.order else None,
        "batch size": run.batch_size if ordered and run else None,
        "preprocessing": provenance.preprocess,
        "histogram": run and run.histogram.value,
        "max memory": run and run.max_memory,
        "backend": run and backend_kind(run.backend),
        "excluded layers": list(run.exclude) if run else [],
        "rule": provenance.rule,
        "header": provenance.table.header,
    }


def known_identity(feed: Feed, previous: Provenance | None, *, needed: bool) -> DataIdentity | None:
    """Return the identity of the data: from the provenance record if no file changed, else by content.

    A stream must be read to its end for it, which is done only if it is `needed`; otherwise the result is None.
    """
    stamps = tuple(stamp.record for stamp in feed.stamps())
    if previous and previous.data and previous.run and stamps:
        data, run = previous.data, previous.run
        if data.order is not None and stamps == data.files and feed.batch_size == run.batch_size:
            return DataIdentity(data.content, data.order, data.chosen)
    identity = feed.identity()
    if identity is None and needed:
        identifier = Identifier()
        for portion in feed.portions():
            identifier.add(portion_digests(portion))
        identity = identifier.identity()
    return identity


@dataclass(frozen=True, slots=True)
class FittingTables:
    """The tables at the output that fit, by rule name, and the provenance record of the first of them.

    outdated: rules whose tables fit but for the TensorRT version in their header, to which they are converted.
    """

    tables: Mapping[str, RecordedTable]
    provenance: Provenance | None
    outdated: frozenset[str] = frozenset()


def find_fitting_tables(paths: Mapping[Path, Rule], request: TableRequest) -> FittingTables:
    """Return the tables that exist and fit. StaleError names what changed in one that does not fit."""
    fitting: dict[str, RecordedTable] = {}
    first: Provenance | None = None
    outdated: frozenset[str] = frozenset()
    for path, rule in paths.items():
        if not exists(path):
            continue
        found = read_recorded_table(path)
        provenance = found.record
        if provenance is None:
            raise StaleError(
                f"{path} already exists but has no provenance record",
                remedy=f"{REMEDY}; quantkit table adopt records a table of unknown origin",
            )
        if provenance.origin != "calibrated":
            how = "adopted" if provenance.origin == "adopted" else "taken from a Q/DQ model"
            raise StaleError(f"{path} was {how}, not calibrated here", remedy=REMEDY)
        if found.changed:
            raise StaleError(f"{path} was changed after quantkit wrote it", remedy=REMEDY)
        theirs, ours = recorded_parts(provenance), request.for_rule(rule)
        if ours["backend"] != TENSORRT and is_other_version(found.table.header, request.headers[rule.name]):
            theirs, outdated = {**theirs, "header": ours["header"]}, outdated | {rule.name}
        refuse_changed(path, theirs, ours)
        fitting[rule.name] = found
        first = first or provenance
    return FittingTables(fitting, first, outdated)


def is_other_version(theirs: Header, ours: Header) -> bool:
    """Return True if two headers differ in the TensorRT version alone, on which no scale depends."""
    return None not in (theirs.version, ours.version) and theirs != ours == replace(theirs, version=ours.version)


def refuse_changed(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise StaleError unless both are the same."""
    unrecorded = {"max memory"} if theirs.get("max memory") is None else set()
    changed = [name for name, value in ours.items() if theirs.get(name) != value and name not in unrecorded]
    if not changed:
        return
    shown = ", ".join(describe_change(name, theirs.get(name), ours[name]) for name in changed)
    raise StaleError(f"{path} was made with something else: {shown}", remedy=REMEDY)


def describe_change(name: str, then: Any, now: Any) -> str:
    """Return a difference as text: `rule (was minmax, now entropy)`; digests are not shown."""
    if isinstance(now, dict) and isinstance(then, dict):
        keys = [key for key in {**then, **now} if now.get(key) != then.get(key)]
        parts = (f"{key} was {setting_text(then.get(key))}, now {setting_text(now.get(key))}" for key in keys)
        return f"{name} ({', '.join(parts)})"
    if any(isinstance(value, (Digest, dict)) for value in (then, now)):
        return name
    return f"{name} (was {setting_text(then)}, now {setting_text(now)})"


def setting_text(value: Any) -> str:
    """Return the value of an option as users write it: `mse, minmax`; `none` for nothing, `yes` and `no`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting_text, value)) or "none"
    return "none" if value is None else str(value)


def matching_statistics(output: Path, request: TableRequest, *, tables: bool) -> Statistics | None:
    """Return the statistics beside the output if they belong to exactly this run.

    None if there are none, or if they belong to another run but fitting `tables` exist. StaleError where statistics of
    another run exist without such tables, StatisticsError where they are damaged.
    """
    path = statistics_path(output)
    if not exists(path):
        return None
    statistics = read_statistics(path)
    origin, parts = statistics.origin, request.parts
    same: Sequence[bool] = (
        origin.model == parts["model"],
        origin.data == parts["data"],
        origin.order == parts["order of the data"],
        origin.batch_size == parts["batch size"],
        origin.preprocess == parts["preprocessing"],
        origin.histogram.value == parts["histogram"],
        backend_kind(origin.backend) == parts["backend"],
    )
    if all(same):
        return statistics
    if tables:
        return None
    raise StaleError(f"{path} exists and belongs to another run", remedy=REMEDY)
