"""The command `quantkit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments import parsing
from quantkit.cli.arguments.engine_options import tuned_folder
from quantkit.cli.arguments.parsing import NUMBER
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import (
    Printing,
    note,
    print_fields,
    print_heading,
    print_line,
    print_rows,
    print_sentence,
)
from quantkit.report.latency_plot import draw_latencies, refuse_undrawable

if TYPE_CHECKING:
    from quantkit.engines.bench import BenchOptions
    from quantkit.engines.bench_result import BenchResult


@verb(
    "Measure how fast models and engines are",
    "quantkit bench model.onnx",
    "quantkit bench model.fp16.engine model.int8.engine --batch 1,32",
)
@click.argument("subjects", metavar="ENGINE|MODEL…", type=options.PATH, nargs=-1, required=True)
@click.option("--batch", metavar="N,N…", default="1,8,32", show_default=True, help=options.BATCHES)
@click.option("--streams", metavar="N,N…", default="1,2", show_default=True, help=options.STREAMS)
@click.option(
    "--graphs",
    metavar="on|off|both",
    default="both",
    show_default=True,
    help="Time with CUDA graphs, without, or both.",
)
@click.option(
    "--seconds", metavar="S", type=NUMBER, default=1.0, show_default=True, help="Seconds to measure for each figure."
)
@click.option("--precision", metavar="P,P…", default="fp32,tf32,fp16,int8", show_default=True, help=options.PRECISIONS)
@options.engine_table("MODEL.calib, if it exists")
@tuned_folder
@click.option(
    "--output", "-o", metavar="DIR", type=options.PATH, help="Folder for the engines. Default: the model's folder."
)
@options.engine_choice("from the smallest --batch to the largest, optimized for the largest")
@click.option("--plot", metavar="FILE", type=options.PATH, help="Draw the latencies to a .svg, .png or .pdf file.")
@options.allow_code
@options.printing_tables_loudly
def bench(
    subjects: tuple[Path, ...],
    table: Path | None,
    tuned: Path | None,
    output: Path | None,
    plot: Path | None,
    engine: options.EngineChoice,
    printing: Printing,
    **own: Any,
) -> None:
    """Measure how fast engines are, side by side; a MODEL is first built in every precision.

    Latency is the GPU's time for one batch alone; throughput has several batches in flight, copies included. Without a
    GPU, models run on onnxruntime, and the output says so.
    """
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.engines.bench import bench as run

    chosen = bench_options(engine.device, own)
    if plot is not None:
        refuse_undrawable(plot, (*subjects, table), force=engine.force)
    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(
            subjects,
            options=chosen,
            build_options=BuildOptions(**engine.keywords()),
            table=table,
            tuned=tuned,
            output=output,
            phase=spinner.phase,
        )
    if plot is not None:
        draw_latencies(result, plot, force=engine.force)
    printing.print_result(result, bench_document, print_bench)
    if plot is not None and not printing.as_json:
        print_line(f"wrote {plot}")


def bench_options(device: int, own: dict[str, Any]) -> BenchOptions:
    """Return the options of the measurement itself. UsageError."""
    from quantkit.engines.bench import BenchOptions

    return BenchOptions(
        batches=parsing.parse_counts(own["batch"], "--batch"),
        streams=parsing.parse_counts(own["streams"], "--streams"),
        graphs=parsing.parse_switches(own["graphs"]),
        seconds=own["seconds"],
        precisions=tuple(own["precision"].split(",")),
        device=device,
        allow_code=own["allow_code"],
    )


def print_bench(result: BenchResult) -> None:
    """Print subjects, latencies, throughputs and verdict."""
    from quantkit.engines.bench_result import bench_verdicts

    for text in result.notes:
        note(text)
    print_fields([("machine", result.machine)])
    print_line()
    print_subjects(result)
    print_latencies(result)
    print_throughputs(result)
    print_line()
    for text in bench_verdicts(result):
        print_sentence(text)


def print_subjects(result: BenchResult) -> None:
    """Print a row for each engine or model."""
    print_rows(
        ("subject", "precision", "MiB", "activations", "built in", "layers"),
        [
            (
                s.name,
                s.precision,
                f"{s.bytes / 2**20:.1f}",
                f"{s.memory / 2**20:.1f} MiB" if s.memory is not None else "",
                f"{s.build_seconds:.1f} s" if s.build_seconds is not None else "",
                " ".join(f"{n}×{p}" for p, n in s.counts.items()),
            )
            for s in result.subjects
        ],
        text=frozenset({1, 5}),
    )


def print_latencies(result: BenchResult) -> None:
    """Print a row for each subject, batch size and use of CUDA graphs."""
    print_heading("latency of one batch, ms" + ("" if result.on_gpu else " (CPU)"))
    print_rows(
        ("subject", "batch", "graph", "median", "p90", "p99", "samples/s"),
        [
            (
                x.subject,
                str(x.batch),
                "yes" if x.graph else "no",
                f"{x.median:.3f}",
                f"{x.p90:.3f}",
                f"{x.p99:.3f}",
                f"{1000 * x.batch / x.median:,.0f}",
            )
            for x in result.latencies
        ],
    )


def print_throughputs(result: BenchResult) -> None:
    """Print a row for each throughput, if any was measured."""
    if not result.throughputs:
        return
    print_heading("throughput with copies, samples/s")
    print_rows(
        ("subject", "batch", "streams", "graph", "samples/s"),
        [
            (x.subject, str(x.batch), str(x.streams), "yes" if x.graph else "no", f"{x.rate:,.0f}")
            for x in result.throughputs
        ],
    )


def bench_document(result: BenchResult) -> dict[str, Any]:
    """Return the result for programs."""
    from dataclasses import asdict

    from quantkit.engines.bench_result import bench_verdicts

    return {**asdict(result), "verdict": list(bench_verdicts(result))}
