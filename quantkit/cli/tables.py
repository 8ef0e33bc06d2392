"""`quantkit table`: show, diff, convert, adopt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantkit.cli.console import print_fields, print_json, print_rows
from quantkit.cli.options import AlgorithmName, Force, Json, TablePath, TensorRTVersion

app = typer.Typer(
    help="Calibration tables: show, compare, convert, adopt.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="The new table.")]


@app.command("show")
def show(table: TablePath, json: Json = False) -> None:
    """Show header, scales and provenance of TABLE."""
    from quantkit.numerics import word_of
    from quantkit.provenance import provenance_path, read_provenance
    from quantkit.table import read_table

    found = read_table(table)
    origin = read_provenance(provenance_path(table))
    if json:
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


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A calibration table.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    json: Json = False,
) -> None:
    """Compare the scales of two tables, the largest difference first."""
    from quantkit.table import diff as compare
    from quantkit.table import read_table

    a, b = read_table(first), read_table(second)
    found = compare(a, b)
    if json:
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


@app.command("convert")
def convert(
    table: TablePath,
    output: Output,
    tensorrt_version: TensorRTVersion = None,
    algorithm: AlgorithmName = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write the scales of TABLE under the header of another TensorRT version or calibrator."""
    from quantkit.cli.names import algorithm_named
    from quantkit.pipeline.convert import convert as run

    made = run(
        table,
        output,
        tensorrt_version=tensorrt_version,
        algorithm=algorithm_named(algorithm),
        force=force,
    )
    if json:
        print_json({"file": str(output), "header": made.header.text, "tensors": len(made)})
    else:
        print(f"wrote {output}: {made.header.text}, {len(made)} tensors")


@app.command("adopt")
def adopt(
    table: TablePath,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model that it is for.")],
    min_coverage: Annotated[
        float,
        typer.Option("--min-coverage", metavar="SHARE", help="Share of the model's tensors, 0 … 1."),
    ] = 0.9,
    force: Force = False,
    json: Json = False,
) -> None:
    """Check that a TABLE of unknown origin belongs to MODEL, and record that beside it."""
    from quantkit.pipeline.convert import adopt as run

    made = run(table, model, min_coverage=min_coverage, force=force)
    covered = made.coverage
    if json:
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
