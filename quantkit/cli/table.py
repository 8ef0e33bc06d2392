"""The commands `quantkit table show`, `diff`, `convert`, `adopt` and `from-qdq`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import VerbGroup, verb
from quantkit.cli.terminal.console import Printing, note, print_fields, print_line, print_rows
from quantkit.view import true_minus

if TYPE_CHECKING:
    from quantkit.calibration.convert_table import Adoption
    from quantkit.calibration.recorded_table import RecordedTable
    from quantkit.provenance import Provenance
    from quantkit.quantization.from_qdq import FromQdq
    from quantkit.table import CalibrationTable, TableDifference

new_table = click.option(
    "--output", "-o", metavar="PATH", type=options.PATH, required=True, help="Calibration table to write."
)


@click.group("table", cls=VerbGroup, short_help="Calibration tables: show, compare, convert, adopt, extract")
def table_group() -> None:
    """Calibration tables: show, compare, convert, adopt, extract from Q/DQ models."""


@verb(
    "Show header, scales and provenance of a table",
    "quantkit table show model.calib",
    "quantkit table show model.calib --json",
    name="show",
    group=table_group,
)
@options.table_argument
@options.printing_loudly
def show_table(table: Path, printing: Printing) -> None:
    """Show the header, the scales and the provenance record of TABLE."""
    from quantkit.calibration.recorded_table import read_recorded_table

    found = read_recorded_table(table)
    printing.print_result(found, table_document, print_table)


def print_table(found: RecordedTable) -> None:
    """Print header and origin, and a row for each scale."""
    from quantkit.numerics import word_of

    table = found.table
    print_fields(
        [
            ("header", table.header.text),
            ("TensorRT", f"{table.header.version_text}, {table.header.algorithm.value}"),
            ("tensors", str(len(table))),
            ("origin", origin_text(found.record)),
        ]
    )
    print_line()
    rows = [(n, f"{s:.6g}", f"{table.amax(n):.6g}", word_of(s)) for n, s in table.scales.items()]
    print_rows(("tensor", "scale", "amax", "word"), rows)
    if found.changed:
        note(f"{found.path} was changed after its record was written; the origin is that of the earlier table")
    note_zero_scales(table)


def note_zero_scales(table: CalibrationTable) -> None:
    """Print a note where scales are 0."""
    from quantkit.table.table import zero_scale_note

    if table.zero:
        note(zero_scale_note(table.zero))


def origin_text(origin: Provenance | None) -> str:
    """Return where a table comes from, in words."""
    if origin is None:
        return "unknown"
    text = f"{origin.origin}, model {origin.model.file} {origin.model.sha256[:12]}"
    if origin.source:
        text += f", scales of {origin.source.file} {origin.source.sha256[:12]}"
    if origin.data:
        noun = "images" if origin.preprocess else "samples"
        text += f", {origin.data.samples} {noun} of {origin.data.source}, rule {origin.rule}"
    return text


def table_document(found: RecordedTable) -> dict[str, Any]:
    """Return the table for programs."""
    table, origin = found.table, found.record
    return {
        "header": table.header.text,
        "algorithm": table.header.algorithm.value,
        "tensorrt_version": table.header.version_text,
        "tensors": len(table),
        "scales": dict(table.scales),
        "provenance": origin.model_dump(mode="json", exclude={"data": {"files"}}) if origin else None,
        "changed": found.changed,
    }


@verb(
    "Compare the scales of two tables",
    "quantkit table diff model.calib other.calib",
    "quantkit table diff entropy.calib minmax.calib --json",
    name="diff",
    group=table_group,
)
@click.argument("first", metavar="A", type=options.PATH)
@click.argument("second", metavar="B", type=options.PATH)
@options.printing_tables_loudly
def diff(first: Path, second: Path, printing: Printing) -> None:
    """Compare the scales of two tables, the largest difference first."""
    from quantkit.table import diff as table_difference
    from quantkit.table import read_table

    a, b = read_table(first), read_table(second)
    printing.print_result(
        table_difference(a, b), difference_document, lambda found: print_difference(found, (first, a), (second, b))
    )


def print_difference(
    difference: TableDifference, first: tuple[Path, CalibrationTable], second: tuple[Path, CalibrationTable]
) -> None:
    """Print what differs: headers, names, and a row for each scale."""
    (path_a, a), (path_b, b) = first, second
    changed = {name: ratio for name, ratio in difference.ratios.items() if ratio != 1.0}
    if difference.headers[0] != difference.headers[1]:
        print_line(f"headers: {difference.headers[0]} and {difference.headers[1]}")
    print_line(f"{len(difference.ratios)} tensors in both, {len(changed)} with different scales")
    for name in difference.only_a:
        print_line(f"only in {path_a}: {name}")
    for name in difference.only_b:
        print_line(f"only in {path_b}: {name}")
    if changed:
        rows = [
            (n, f"{a.scales[n]:.6g}", f"{b.scales[n]:.6g}", true_minus(f"{r - 1:+.3%}")) for n, r in changed.items()
        ]
        print_rows(("tensor", "A", "B", "B/A − 1"), rows)


def difference_document(difference: TableDifference) -> dict[str, Any]:
    """Return the differences for programs."""
    return {
        "equal": difference.equal,
        "headers": list(difference.headers),
        "worst": difference.worst,
        "only_a": list(difference.only_a),
        "only_b": list(difference.only_b),
        "ratios": difference.ratios,
    }


@verb(
    "Write a table for another TensorRT version",
    "quantkit table convert model.calib --tensorrt-version 8.6.1 -o model.86.calib",
    "quantkit table convert model.calib --tensorrt-version 10.13.3 -o trt10.calib",
    name="convert",
    group=table_group,
)
@options.table_argument
@new_table
@options.header_choice()
@options.force
@options.printing_loudly
def convert(table: Path, output: Path, header: options.HeaderChoice, force: bool, printing: Printing) -> None:
    """Write the scales of TABLE with the header of another TensorRT version or calibrator."""
    from quantkit.calibration.convert_table import convert as run

    printing.print_result(
        run(table, output, force=force, **header.keywords()),
        lambda made: {"file": str(output), "header": made.header.text, "tensors": len(made)},
        lambda made: print_converted(made, output),
    )


def print_converted(table: CalibrationTable, output: Path) -> None:
    """Print what a converted table holds."""
    print_line(f"wrote {output}: {table.header.text}, {len(table)} tensors")
    note_zero_scales(table)


@verb(
    "Record a table of unknown origin as that of a model",
    "quantkit table adopt model.calib model.onnx",
    "quantkit table adopt model.calib model.onnx --min-coverage 0.8",
    name="adopt",
    group=table_group,
)
@options.table_argument
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.min_coverage
@options.force
@options.printing_loudly
def adopt(table: Path, model: Path, min_coverage: float, force: bool, printing: Printing) -> None:
    """Check that TABLE, of unknown origin, belongs to MODEL, and write a provenance record beside it."""
    from quantkit.calibration.convert_table import adopt as run

    result = run(table, model, min_coverage=min_coverage, force=force)
    printing.print_result(result, adoption_document, print_adoption)


def print_adoption(result: Adoption) -> None:
    """Print how well the table fits the model."""
    covered = result.coverage
    extra = f"{len(covered.extra)} names that the ONNX graph does not have; TensorRT's parser creates such names"
    print_fields(
        [
            ("covered", f"{len(covered.matched)} tensors of the model, {covered.share:.1%}"),
            ("missing", ", ".join(covered.missing) or "none"),
            ("extra", extra),
            ("wrote", str(result.provenance)),
        ]
    )


def adoption_document(result: Adoption) -> dict[str, Any]:
    """Return the result for programs."""
    covered = result.coverage
    return {
        "provenance": str(result.provenance),
        "share": covered.share,
        "matched": len(covered.matched),
        "missing": list(covered.missing),
        "extra": list(covered.extra),
    }


@verb(
    "Extract a table and the float model from Q/DQ",
    "quantkit table from-qdq model.int8.onnx -o model.calib",
    "quantkit table from-qdq model.int8.onnx --tensorrt-version 8.6.1 -o trt8.calib",
    name="from-qdq",
    group=table_group,
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@new_table
@click.option(
    "--model",
    "plain",
    metavar="PATH",
    type=options.PATH,
    help="Model without Q/DQ nodes to write. Default: beside the table, x.float.onnx for x.calib.",
)
@options.header_choice(default_algorithm="EntropyCalibration2")
@click.option("--no-infer", is_flag=True, help="Use only the scales in the file; infer none from neighbours.")
@options.force
@options.printing_loudly
def from_qdq(
    model: Path,
    output: Path,
    plain: Path | None,
    header: options.HeaderChoice,
    no_infer: bool,
    force: bool,
    printing: Printing,
) -> None:
    """Extract a calibration table and the float model from a Q/DQ MODEL of any tool, for TensorRT up to 10 and DLA."""
    from quantkit.quantization.from_qdq import from_qdq as run

    result = run(model, output, plain=plain, infer=not no_infer, force=force, **header.keywords())
    printing.print_result(result, from_qdq_document, print_from_qdq)


def print_from_qdq(result: FromQdq) -> None:
    """Print what was extracted."""
    covered = result.coverage
    tensors = len(covered.matched) + len(covered.missing)
    biases = f"; {result.biases} biases became float" if result.biases else ""
    print_fields(
        [
            (
                "scales",
                f"{len(result.scales) - len(result.inferred)} of the file, {len(result.inferred)} inferred from "
                "neighbours",
            ),
            ("covered", f"{len(covered.matched)} of {tensors} float tensors, {covered.share:.1%}"),
            (
                "weights",
                f"{len(result.weights)} lost their own scales, TensorRT uses max|w|/127 per output channel{biases}",
            ),
            ("tried", result.trial.text),
            *(("note", text) for text in result.notes),
            *(("wrote", str(path)) for path in (result.model, result.table, result.provenance) if path),
        ]
    )


def from_qdq_document(result: FromQdq) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "table": str(result.table) if result.table else None,
        "model": str(result.model),
        "provenance": str(result.provenance) if result.provenance else None,
        "header": result.scales.header.text,
        "scales": len(result.scales) - len(result.inferred),
        "inferred": dict(result.inferred),
        "share": result.coverage.share,
        "missing": list(result.coverage.missing),
        "weights": dict(result.weights),
        "biases": result.biases,
        "unscaled": dict(result.unscaled),
        "trial": result.trial.document,
        "notes": list(result.notes),
    }
