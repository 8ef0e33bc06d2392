"""The command `quantkit compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantkit.cli import options
from quantkit.cli.arguments.parsing import NUMBER, WHOLE, parse_size
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import (
    Printing,
    note,
    print_fields,
    print_heading,
    print_line,
    print_rows,
    print_sentence,
    print_sizes,
)

if TYPE_CHECKING:
    from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
    from quantkit.backends.tensorrt_rtx.refusals import Refusal
    from quantkit.compiling.options import CompileOptions
    from quantkit.compiling.result import CompiledModel

SHOWN, DETOURS = 30, 8


@verb(
    "See which kernels NVIDIA's compiler makes, without a GPU",
    "quantkit compile model.int8.onnx",
    "quantkit compile model.int8.onnx --gpus l4,rtx4090 --record compiled.json",
    "quantkit compile model.int8.onnx --for sm86,sm89,sm120 --save model.engine",
    name="compile",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--for",
    "targets",
    metavar="ARCHITECTURE,ARCHITECTURE…",
    help="GPU architectures: sm75, sm80, sm86, sm89, sm120, sm121, or all. Default: those of --gpus, else sm86,sm120.",
)
@click.option(
    "--gpus",
    metavar="GPU,GPU…",
    help="GPUs to estimate times for: t4, a100, a40, l4, l40, l40s, rtx4090, h200, rtx5090. Default: a usual one of "
    "each architecture.",
)
@options.shapes("--batch, and usual sizes for others; of a range, the best shape is compiled")
@click.option("--batch", metavar="N", type=WHOLE, help="Batch size of inputs with a dynamic batch. Default: 1.")
@click.option("--no-compare", is_flag=True, help="Do not compile the float network in FP16 as well.")
@click.option("--against", metavar="PATH", type=options.PATH, help="ONNX file to compare MODEL with, instead of FP16.")
@click.option(
    "--save",
    metavar="PATH",
    type=options.PATH,
    help="Engine to write, for GPUs of the architecture and the TensorRT-RTX runtime. Several architectures: one file "
    "each, with the architecture before the suffix.",
)
@click.option(
    "--record", metavar="PATH", type=options.PATH, help="Record of the kernels to write, such as MODEL.compiled.json."
)
@click.option(
    "--time-limit", metavar="S", type=NUMBER, default=900.0, show_default=True, help="Maximum time for one network."
)
@click.option(
    "--memory", metavar="SIZE", default="32GiB", show_default=True, help="Maximum memory of the compiler's process."
)
@click.option("--kernels", "every", is_flag=True, help="Show every kernel, not only the first ones.")
@options.force
@options.printing_tables
def compile_command(
    model: Path,
    targets: str | None,
    gpus: str | None,
    shapes: tuple[str, ...],
    against: Path | None,
    save: Path | None,
    record: Path | None,
    every: bool,
    printing: Printing,
    **own: object,
) -> None:
    """Compile MODEL with NVIDIA's TensorRT-RTX, without a GPU, and show which kernels compute in INT8 or FP8.

    MODEL may have Q/DQ nodes or not. Shown are the ONNX nodes in every kernel, what it reads and writes, where values
    go from INT8 through float memory to INT8, and the bytes moved, beside the float network in FP16. Times are
    estimates from published figures. TensorRT-RTX is a compiler of the TensorRT 11 generation, not TensorRT itself.
    Needs: pip install 'tensorrt-rtx-cu13>=1.7,<2'. Exit code: 1 if the compiler refuses MODEL.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.compiling.compile import compile as run
    from quantkit.compiling.result import compiled_document

    chosen = compile_options(targets, gpus, shapes, own)
    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(model, options=chosen, against=against, save=save, record=record, phase=spinner.phase)
    printing.print_result(result, compiled_document, lambda result: print_compiled(result, every=every))
    if result.refusals:
        if printing.quiet or printing.as_json or printing.as_markdown:
            for refusal in result.refusals:
                note(refusal_text(refusal))
        raise click.exceptions.Exit(1)


def compile_options(
    targets: str | None, gpus: str | None, shapes: tuple[str, ...], own: dict[str, object]
) -> CompileOptions:
    """Return the options as a value. UsageError."""
    from quantkit.backends.tensorrt_rtx.architectures import parse_architectures
    from quantkit.compiling.gpus import parse_gpus
    from quantkit.compiling.options import CompileOptions

    return CompileOptions(
        architectures=() if targets is None else parse_architectures(targets),
        gpus=() if gpus is None else parse_gpus(gpus),
        shapes=shapes,
        batch=own["batch"],  # type: ignore[arg-type]
        compare=not own["no_compare"],
        seconds=own["time_limit"],  # type: ignore[arg-type]
        memory=parse_size(str(own["memory"])),
        force=bool(own["force"]),
    )


def print_compiled(result: CompiledModel, *, every: bool) -> None:
    """Print refusals, the kernels for the first architecture, the comparison, estimates, and what was written."""
    from quantkit.compiling.result import CAVEAT
    from quantkit.compiling.roofline import TRUST

    for refusal in result.refusals:
        print_refusal(refusal)
    if result.networks:
        print_network(result, result.networks[0], every=every)
        print_comparison(result)
    for text in (*result.notes, *([TRUST] if result.networks and result.gpus else []), CAVEAT):
        print_sentence(text)
    if result.saved or result.record:
        print_line()
    for architecture, path in result.saved.items():
        print_sizes([path])
        print_line(f"       for PCs with {runs_on(architecture)}, and the TensorRT-RTX {result.version} runtime")
    if result.record:
        print_sizes([result.record])


def runs_on(architecture: str) -> str:
    """Return the GPUs that run an engine."""
    from quantkit.backends.tensorrt_rtx.architectures import ARCHITECTURES

    return f"{architecture} GPUs ({ARCHITECTURES[architecture]})"


def print_refusal(refusal: Refusal) -> None:
    """Print where and why the compiler refuses a network, the remedy, and NVIDIA's text."""
    print_line(refusal_text(refusal))
    if refusal.text != refusal.problem:
        print_line(f"    TensorRT-RTX: {refusal.text}")
    print_line(f"  → {refusal.remedy}")


def refusal_text(refusal: Refusal) -> str:
    """Return a refusal in a line."""
    return f"refused for {refusal.architecture}: {refusal.place}: {refusal.problem}"


def print_network(result: CompiledModel, network: CompiledNetwork, *, every: bool) -> None:
    """Print a network's figures, its kernels, and where values leave INT8."""
    from quantkit.compiling.kernel_rows import HEAD, count_kinds, kernel_rows
    from quantkit.compiling.options import MIB
    from quantkit.compiling.result import architecture_text, products_text

    memory = [(network.activation_bytes, "activations"), (network.weight_bytes, "weights")]
    stated = ", ".join(f"{size / MIB:.1f} MiB of {what}" for size, what in memory if size is not None)
    print_fields(
        [
            ("compiled", f"for {architecture_text(network.architecture)}, TensorRT-RTX {result.version}"),
            ("shapes", result.shapes_text),
            ("kernels", f"{len(network.running)}: {count_kinds(network)}".removesuffix(": ")),
            ("INT8", f"{products_text(network)} convolutions and matrix products"),
            ("moved", f"{network.bytes / MIB:.2f} MiB read and written by all kernels"),
            ("engine", f"{network.engine_bytes / MIB:.1f} MiB{f'; {stated}' if stated else ''}"),
            ("time", f"{network.seconds:.1f} s"),
        ]
    )
    rows = kernel_rows(network, result.pairs)
    print_line()
    print_rows(HEAD, rows if every else rows[:SHOWN], text=frozenset({1, 2, 3, 5}))
    if len(rows) > SHOWN and not every:
        print_line(f"… {len(rows) - SHOWN} more (--kernels shows all)")
    detours = result.detours(network)
    if detours:
        moved = sum(detour.bytes for detour in detours)
        kinds = {name for name in ("INT8", "FP8") for kernel in network.products if kernel.multiplies_in(name)}
        kind = "8 bits" if len(kinds) > 1 else kinds.pop() if kinds else "INT8"
        what = f"{len(detours)} values go {kind} → float → {kind}"
        print_heading(f"{what}, {moved / MIB:.2f} MiB written and read in float")
        for detour in detours if every else detours[:DETOURS]:
            print_line(f"  {detour.writer} → {detour.type} → {detour.reader}")
        if len(detours) > DETOURS and not every:
            print_line(f"  … {len(detours) - DETOURS} more (--kernels shows all)")


def print_comparison(result: CompiledModel) -> None:
    """Print the networks side by side, and the estimates."""
    from quantkit.compiling.gpus import GPUS
    from quantkit.compiling.result import COMPARED, ESTIMATED
    from quantkit.compiling.roofline import LAUNCH, WARNING

    print_line()
    print_rows(COMPARED, result.comparison_rows(), text=frozenset({1, 3}))
    rows = result.estimate_rows()
    if not rows:
        print_line()
        return
    print_heading(f"{WARNING}:")
    print_line("the sum over all kernels of the larger of operations/peak and bytes/bandwidth,")
    print_line(f"and {LAUNCH:g} µs to launch each")
    print_rows(ESTIMATED, rows, text=frozenset({1}))
    for key in result.gpus:
        print_sentence(GPUS[key].figures)
    print_line()
