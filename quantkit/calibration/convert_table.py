"""The verbs of `quantkit table` that write: convert to another TensorRT version, adopt a table of unknown origin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import check_writable, sha256_of, write_all
from quantkit.calibration.recorded_table import read_unchanged_table
from quantkit.errors import StaleError, TableError, UsageError
from quantkit.graph import AnyModel, load_model, watched_tensors
from quantkit.paths import exists, given_path
from quantkit.provenance import (
    ModelRecord,
    Provenance,
    TableRecord,
    check_tables_writable,
    provenance_bytes,
    provenance_path,
)
from quantkit.table import Algorithm, CalibrationTable, Coverage, coverage, read_table, table_bytes
from quantkit.table.comparison import MIN_COVERAGE
from quantkit.tensorrt_version import target_version
from quantkit.values import check_number
from quantkit.view import Block, RichDisplay


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    tensorrt_version: str | None = None,
    algorithm: Algorithm | None = None,
    force: bool = False,
) -> CalibrationTable:
    """Write the same scales under the header of another TensorRT version or calibrator, with their provenance.

    trtexec reads only tables with the header `EntropyCalibration2`. TableError, StaleError, UsageError.
    """
    source, output = given_path(source, "the table"), given_path(output, "output")
    may_replace = check_tables_writable([output], read=[source], force=force)
    found = read_unchanged_table(source, f"remove {provenance_path(source).name} if you trust the table")
    table = found.table
    chosen = algorithm or table.header.algorithm
    if chosen is Algorithm.LEGACY and table.header.algorithm is not Algorithm.LEGACY:
        raise UsageError(
            "only a table with cutoff and quantile can have the Legacy header",
            remedy="quantkit stats table --rule percentile:99.99 --algorithm LegacyCalibration",
        )
    if algorithm is None and tensorrt_version is None:
        raise UsageError("nothing to convert", remedy="give --tensorrt-version, --algorithm, or both")
    if chosen is Algorithm.LEGACY:
        raise UsageError("the Legacy header has no version", remedy="copy the file as it is")
    version = target_version(tensorrt_version).number if tensorrt_version else table.header.version
    if version is None:
        raise UsageError("the Legacy table names no TensorRT version", remedy="give --tensorrt-version")
    header = replace(table.header, algorithm=chosen, version=version)
    converted = table.with_header(header)
    content = table_bytes(converted)
    files = {output: content}
    if (known := found.record) is not None:
        record = TableRecord(file=output.name, sha256=sha256_of(content), header=header.text, tensors=len(table))
        files[provenance_path(output)] = provenance_bytes(known.model_copy(update={"table": record}))
    write_all(files, may_replace=may_replace)
    return converted


@dataclass(frozen=True, slots=True)
class Adoption(RichDisplay):
    """A table of unknown origin that was checked against a network."""

    table: CalibrationTable
    coverage: Coverage
    provenance: Path

    def _view_(self) -> Sequence[Block]:
        return f"{self.table.header.text}, adopted in {self.provenance.name}", *self.coverage._view_()


def adopt(
    source: str | os.PathLike[str],
    model: AnyModel,
    *,
    min_coverage: float = MIN_COVERAGE,
    force: bool = False,
) -> Adoption:
    """Check that a table's names are those of a network, and write a provenance record with the origin `adopted`.

    TableError where fewer than `min_coverage` of the network's tensors have a scale.
    """
    check_number("min_coverage", min_coverage, 0.0, 1.0, whole=False)
    source = given_path(source, "the table")
    table = read_table(source)
    target = provenance_path(source)
    check_writable(target)
    if exists(target) and not force:
        raise StaleError(f"{source} already has a provenance record: {target}", remedy="--force replaces it")
    network = load_model(model)
    covered = coverage(table, watched_tensors(network).tensors)
    if covered.share < min_coverage or not covered.matched:
        missing = ", ".join(covered.missing[:5]) + (" …" if len(covered.missing) > 5 else "")
        raise TableError(
            f"{source} covers {covered.share:.0%} of the tensors of {model}; missing: {missing}",
            remedy="give the model that the table was made for"
            + (", or accept it with a lower --min-coverage" if covered.matched else ""),
        )
    record = Provenance(
        quantkit=__version__,
        table=TableRecord(
            file=source.name,
            sha256=sha256_of(table_bytes(table)),
            header=table.header.text,
            tensors=len(table),
        ),
        model=ModelRecord(file=network.path.name, sha256=network.sha256),
        origin="adopted",
    )
    write_all({target: provenance_bytes(record)}, may_replace=lambda _: force)
    return Adoption(table, covered, target)
