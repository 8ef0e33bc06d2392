"""`quantkit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import BackendError, OutputError, UsageError
from quantkit.extras import install_command

if TYPE_CHECKING:
    from quantkit.engines.bench_result import BenchResult

import sys
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json, print_rows, print_sentence

if TYPE_CHECKING:
    from quantkit.engines.bench_result import BenchResult


@click.command()
@click.argument("subjects", metavar="ENGINE|MODEL…", type=options.PATH, nargs=-1, required=True)
@click.option("--batch", metavar="N,N…", default="1,8,32", show_default=True, help="Batch sizes.")
@click.option("--streams", metavar="N,N…", default="1,2", show_default=True, help="Batches under way at once.")
@click.option("--graphs", metavar="on|off|both", default="both", show_default=True, help="CUDA graphs.")
@click.option("--seconds", metavar="S", type=float, default=1.0, show_default=True, help="Time for each figure.")
@click.option(
    "--precision",
    metavar="P,P…",
    default="fp32,tf32,fp16,int8",
    show_default=True,
    help="Engines to build of a model.",
)
@click.option(
    "--table", metavar="PATH", type=options.PATH, help="Calibration table for INT8. Default: MODEL.calib, if there."
)
@click.option(
    "--output", "-o", metavar="DIR", type=options.PATH, help="Folder for the engines. Default: beside the model."
)
@click.option(
    "--shapes",
    metavar="INPUT=MIN:OPT:MAX",
    multiple=True,
    help="Range of a dynamic input of a MODEL. Default: from the smallest batch to the largest, tuned for that.",
)
@options.level
@click.option("--no-fp16", is_flag=True, help="INT8 without FP16 as fallback.")
@click.option("--retarget", is_flag=True, help="Use a table of another TensorRT version.")
@click.option("--plot", metavar="FILE", type=options.PATH, help="Draw latencies: .svg, .png or .pdf.")
@click.option("--allow-code", is_flag=True, help="Run the code that version compatible engines bring along.")
@options.device
@options.force
@options.as_json
def bench(
    subjects: tuple[Path, ...],
    table: Path | None,
    output: Path | None,
    plot: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure how fast engines are, side by side; a MODEL is built in every precision first.

    Latency is the device's time for one batch alone; throughput has several batches under way, copies included. Without
    a GPU models run on onnxruntime, and the figures say so.
    """
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.cli.progress import Spinner
    from quantkit.engines.bench import BenchOptions
    from quantkit.engines.bench import bench as run
    from quantkit.engines.bench_result import bench_verdicts

    chosen = BenchOptions(
        batches=options.parse_counts(settings["batch"], "--batch"),
        streams=options.parse_counts(settings["streams"], "--streams"),
        graphs=options.parse_switches(settings["graphs"]),
        seconds=settings["seconds"],
        precisions=tuple(settings["precision"].split(",")),
        device=settings["device"],
        allow_code=settings["allow_code"],
    )
    build_options = BuildOptions(
        shapes=tuple(settings["shapes"]),
        level=settings["level"],
        fp16=not settings["no_fp16"],
        retarget=settings["retarget"],
        device=settings["device"],
        force=settings["force"],
    )
    if plot is not None:
        refuse_undrawable(plot)
    with Spinner(hidden=as_json or not sys.stderr.isatty()) as spinner:
        made = run(
            subjects, options=chosen, build_options=build_options, table=table, output=output, phase=spinner.phase
        )
    if plot is not None:
        draw_latencies(made, plot)
    if as_json:
        print_json(bench_document(made))
        return
    print_bench(made)
    for text in bench_verdicts(made):
        print_sentence(text)
    if plot is not None:
        print(f"wrote {plot}")


def print_bench(made: BenchResult) -> None:
    """The figures, for people."""
    for text in made.notes:
        note(text)
    print_fields([("machine", made.machine)])
    print()
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
            for s in made.subjects
        ],
        text=frozenset({1, 5}),
    )
    print("\nlatency of one batch, ms" + ("" if made.on_gpu else " (processor)"))
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
            for x in made.latencies
        ],
    )
    if made.throughputs:
        print("\nthroughput with copies, samples/s")
        print_rows(
            ("subject", "batch", "streams", "graph", "samples/s"),
            [
                (x.subject, str(x.batch), str(x.streams), "yes" if x.graph else "no", f"{x.rate:,.0f}")
                for x in made.throughputs
            ],
        )
    print()


def bench_document(made: BenchResult) -> dict[str, Any]:
    """The result for programs."""
    from dataclasses import asdict

    from quantkit.engines.bench_result import bench_verdicts

    return {**asdict(made), "verdict": list(bench_verdicts(made))}


FORMATS = frozenset({".svg", ".png", ".pdf"})


COLOURS = {"fp32": "#8c8c8c", "tf32": "#4c78a8", "fp16": "#f2a93b", "int8": "#2f9e6e", "best": "#7b4fa3"}


OTHER = "#555555"


def refuse_undrawable(path: Path) -> None:
    """Fail before the work. UsageError, OutputError, BackendError."""
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", remedy=f"the name ends in {', '.join(sorted(FORMATS))}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", remedy="make the folder first")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError("a plot needs matplotlib", remedy=install_command("notebook")) from None


def draw_latencies(made: BenchResult, path: Path) -> None:
    """Median latency of every subject at every batch size, as bars with their values. OutputError."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from quantkit.artifact import write_whole

    batches, subjects = made.batches, made.subjects
    figure = Figure(figsize=(7.2, 0.7 + len(batches) * (0.5 + 0.26 * len(subjects))), layout="constrained")
    FigureCanvasAgg(figure)
    precisions = [s.precision for s in subjects]
    labels = {s.name: s.precision if precisions.count(s.precision) == 1 else s.name for s in subjects}
    for axes, batch in zip(figure.subplots(len(batches), squeeze=False)[:, 0], batches, strict=True):
        timed = [(s, value) for s in subjects if (value := made.median(s.name, batch)) is not None]
        bars = axes.barh(
            range(len(timed)), [value for _, value in timed], color=[COLOURS.get(s.precision, OTHER) for s, _ in timed]
        )
        axes.bar_label(bars, [f"{value:.3f}" for _, value in timed], padding=3, fontsize=8)
        axes.set_yticks(range(len(timed)), [labels[s.name] for s, _ in timed], fontsize=8)
        axes.set_title(f"batch {batch}", fontsize=9, loc="left")
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("median latency of one batch, ms", fontsize=8)
    figure.suptitle(made.machine, fontsize=9)
    content = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=metadata)
    write_whole(path, content.getvalue())
