"""The command `quantkit profile`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments import parsing
from quantkit.cli.arguments.parsing import NUMBER, WHOLE
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, note, print_fields, print_line, print_rows, print_sizes

if TYPE_CHECKING:
    from quantkit.gpu_profile.profiling import ProfiledGpu


@verb(
    "Measure where INT8 is faster than FP16 on this GPU",
    "quantkit profile -o gpu.json",
    "quantkit profile -o gpu.json --seconds 120 --batch 1",
)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    required=True,
    help="GPU profile to write. The measured engines go beside it, and a second run goes on with them.",
)
@click.option(
    "--seconds", metavar="S", type=NUMBER, default=300.0, show_default=True, help="Time after which it stops."
)
@click.option("--batch", metavar="N,N…", default="1,32,8", show_default=True, help=options.BATCHES)
@click.option(
    "--level",
    metavar="0…5",
    type=WHOLE,
    default=1,
    show_default=True,
    help="TensorRT's builder optimization level: how long it searches for fast kernels.",
)
@options.device
@options.force
@options.printing
def profile(output: Path, batch: str, printing: Printing, **own: Any) -> None:
    """Measure chains of operators in FP16 and in INT8 on this GPU, layer by layer, for `quantkit quantize --for`.

    The most important chains come first, and the profile is written after each engine: it is valid whenever the
    measurement stops. Let nothing else run on the GPU meanwhile.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.gpu_profile.profiling import ProfileOptions
    from quantkit.gpu_profile.profiling import profile as run

    chosen = ProfileOptions(batches=parsing.parse_counts(batch, "--batch"), **own)
    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(output, options=chosen, phase=spinner.phase)
    printing.print_result(result, profile_document, print_profile)


def profile_document(result: ProfiledGpu) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "files": [str(path) for path in result.files],
        "gpu": result.profile.gpu,
        "tensorrt": result.profile.tensorrt,
        "date": result.profile.date,
        "level": result.profile.level,
        "engines": result.engines,
        "complete": result.complete,
        "failed": list(result.failed),
        "kinds": [asdict(kind) for kind in result.kinds],
    }


def print_profile(result: ProfiledGpu) -> None:
    """Print for each kind of operator how often INT8 is faster, and by how much."""
    for text in result.failed:
        note(f"TensorRT does not build {text}")
    left = "" if result.complete else "; a second run goes on"
    print_fields([("machine", result.profile.where), ("measured", f"{result.engines} engines{left}")])
    print_line()
    print_rows(
        ("operator", "measured", "INT8 faster", "FP16 / INT8: least", "median", "most"),
        [
            (k.kind, str(k.count), str(k.faster), *(f"{value:.2f}" for value in (k.least, k.median, k.most)))
            for k in result.kinds
        ],
    )
    print_line()
    print_sizes(result.files)
