"""`quantkit table`: show, diff, convert, adopt, from-qdq."""

from __future__ import annotations

from pathlib import Path

import click

from quantkit.cli import options
from quantkit.cli.console import print_fields, print_json, print_rows


@click.group("table")
def table_group() -> None:
    """Calibration tables: show, compare, convert, adopt, take out of Q/DQ models."""


@table_group.command("show")
@options.table
@options.as_json
def show_table(table: Path, as_json: bool) -> None:
    """Show header, scales and provenance of TABLE."""
    from quantkit.numerics import word_of
    from quantkit.provenance import provenance_path, read_provenance
    from quantkit.table import read_table

    found = read_table(table)
    origin = read_provenance(provenance_path(table))
    if as_json:
        print_json(
            {
                "header": found.header.text,
                "algorithm": found.header.algorithm.value,
                "tensorrt_version": found.header.version_text,
                "tensors": len(found),
                "scales": dict(found.scales),
                "provenance": origin.model_dump(mode="json", exclude={"data": {"files"}}) if origin else None,
            }
        )
        return
    told = "unknown"
    if origin:
        told = f"{origin.origin}, model {origin.model.file} {origin.model.sha256[:12]}"
        if origin.source:
            told += f", scales of {origin.source.file} {origin.source.sha256[:12]}"
        if origin.data:
            told += f", {origin.data.samples} images of {origin.data.source}, rule {origin.rule}"
    print_fields(
        [
            ("header", found.header.text),
            ("TensorRT", f"{found.header.version_text}, {found.header.algorithm.value}"),
            ("tensors", str(len(found))),
            ("origin", told),
        ]
    )
    print()
    rows = [(n, f"{s:.6g}", f"{found.amax(n):.6g}", word_of(s)) for n, s in found.scales.items()]
    print_rows(("tensor", "scale", "amax", "word"), rows)


@table_group.command("diff")
@click.argument("first", metavar="A", type=options.PATH)
@click.argument("second", metavar="B", type=options.PATH)
@options.as_json
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Compare the scales of two tables, the largest difference first."""
    from quantkit.table import diff as compare
    from quantkit.table import read_table

    a, b = read_table(first), read_table(second)
    found = compare(a, b)
    if as_json:
        print_json(
            {
                "equal": found.equal,
                "headers": list(found.headers),
                "worst": found.worst,
                "only_a": list(found.only_a),
                "only_b": list(found.only_b),
                "ratios": found.ratios,
            }
        )
        return
    changed = {name: ratio for name, ratio in found.ratios.items() if ratio != 1.0}
    if found.headers[0] != found.headers[1]:
        print(f"headers: {found.headers[0]} and {found.headers[1]}")
    print(f"{len(found.ratios)} tensors in both, {len(changed)} with another scale")
    for name in found.only_a:
        print(f"only in {first}: {name}")
    for name in found.only_b:
        print(f"only in {second}: {name}")
    if changed:
        rows = [(n, f"{a.scales[n]:.6g}", f"{b.scales[n]:.6g}", f"{r - 1:+.3%}") for n, r in changed.items()]
        print_rows(("tensor", "A", "B", "B/A − 1"), rows)


@table_group.command("convert")
@options.table
@click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="The new table.")
@options.tensorrt_version
@options.algorithm
@options.force
@options.as_json
def convert(
    table: Path, output: Path, tensorrt_version: str | None, algorithm: str | None, force: bool, as_json: bool
) -> None:
    """Write the scales of TABLE under the header of another TensorRT version or calibrator."""
    from quantkit.calibration.convert_table import convert as run
    from quantkit.cli.options import parse_algorithm

    made = run(
        table,
        output,
        tensorrt_version=tensorrt_version,
        algorithm=parse_algorithm(algorithm),
        force=force,
    )
    if as_json:
        print_json({"file": str(output), "header": made.header.text, "tensors": len(made)})
    else:
        print(f"wrote {output}: {made.header.text}, {len(made)} tensors")


@table_group.command("adopt")
@options.table
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.min_coverage
@options.force
@options.as_json
def adopt(table: Path, model: Path, min_coverage: float, force: bool, as_json: bool) -> None:
    """Check that a TABLE of unknown origin belongs to MODEL, and record that beside it."""
    from quantkit.calibration.convert_table import adopt as run

    made = run(table, model, min_coverage=min_coverage, force=force)
    covered = made.coverage
    if as_json:
        print_json(
            {
                "provenance": str(made.provenance),
                "share": covered.share,
                "matched": len(covered.matched),
                "missing": list(covered.missing),
                "extra": list(covered.extra),
            }
        )
        return
    print_fields(
        [
            ("covered", f"{len(covered.matched)} tensors of the model, {covered.share:.1%}"),
            ("missing", ", ".join(covered.missing) or "none"),
            (
                "extra",
                f"{len(covered.extra)} names that the ONNX graph does not have; TensorRT's parser makes such names",
            ),
            ("wrote", str(made.provenance)),
        ]
    )


@table_group.command("from-qdq")
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="The table.")
@click.option(
    "--model",
    "plain",
    metavar="PATH",
    type=options.PATH,
    help="The model without Q/DQ. Default: beside the table, x.float.onnx for x.calib.",
)
@options.tensorrt_version
@click.option(
    "--algorithm",
    metavar="NAME",
    default="EntropyCalibration2",
    show_default=True,
    help="Header's algorithm: EntropyCalibration2, MinMaxCalibration or EntropyCalibration.",
)
@click.option("--no-infer", is_flag=True, help="Only the scales of the file, none from neighbours.")
@options.force
@options.as_json
def from_qdq(
    model: Path,
    output: Path,
    plain: Path | None,
    tensorrt_version: str | None,
    algorithm: str,
    no_infer: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make a table and the plain float model of a Q/DQ MODEL, by whatever tool, for TensorRT up to 10 and DLA."""
    from quantkit.cli.options import parse_algorithm
    from quantkit.quantization.from_qdq import from_qdq as run
    from quantkit.table import Algorithm

    made = run(
        model,
        output,
        plain=plain,
        tensorrt_version=tensorrt_version,
        algorithm=parse_algorithm(algorithm) or Algorithm.ENTROPY_2,
        infer=not no_infer,
        force=force,
    )
    if as_json:
        print_json(
            {
                "table": str(made.table),
                "model": str(made.model),
                "provenance": str(made.provenance),
                "header": made.scales.header.text,
                "scales": len(made.scales) - len(made.inferred),
                "inferred": dict(made.inferred),
                "share": made.coverage.share,
                "missing": list(made.coverage.missing),
                "weights": dict(made.weights),
                "biases": made.biases,
                "unscaled": dict(made.unscaled),
                "notes": list(made.notes),
            }
        )
        return
    covered, lost = made.coverage, len(made.weights)
    wanted = len(covered.matched) + len(covered.missing)
    stored = f", {made.biases} biases became float" if made.biases else ""
    print_fields(
        [
            (
                "scales",
                f"{len(made.scales) - len(made.inferred)} of the file, {len(made.inferred)} inferred from neighbours",
            ),
            (
                "covered",
                f"{len(covered.matched)} of {wanted} float tensors, {covered.share:.1%}",
            ),
            ("weights", f"{lost} lost their own scales, TensorRT takes max|w|/127 per output channel{stored}"),
            *(("note", text) for text in made.notes),
            *(("wrote", str(path)) for path in (made.model, made.table, made.provenance)),
        ]
    )
