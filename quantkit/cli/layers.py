"""The command `quantkit layers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.parsing import NUMBER, WHOLE
from quantkit.cli.arguments.scale_files import ScaleFiles, find_scales
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.arguments.worker_choice import STOPPING, WorkerChoice, worker_choice
from quantkit.cli.terminal.console import (
    Printing,
    note,
    print_fields,
    print_heading,
    print_line,
    print_rows,
    print_sentence,
    warn,
)
from quantkit.cli.terminal.shard_lines import print_shard_of_totals, shard_fields
from quantkit.errors import UsageError
from quantkit.view import signed

if TYPE_CHECKING:
    from quantkit.graph import Model
    from quantkit.sensitivity.options import LayersOptions
    from quantkit.sensitivity.parity import Parity
    from quantkit.sensitivity.result import LayerError, Sensitivity, TensorError
    from quantkit.sensitivity.shards.files import MeasuredShard

KEPT = 3
"""Layers in an exclusion file if neither --keep nor --keep-db is given."""
OF_DATA = (
    "preprocess", "limit", "skip_corrupt", "frame_step", "batch_size", "threads", "shard", "merge", "workers", "on",
    "gpus_per_worker",
)  # fmt: skip
"""Options that say how samples are read and measured."""
OF_FIGURES = ("html", "keep", "keep_db", "parity", "top", "as_markdown")
"""Options that are about the result of all shards."""


@verb(
    "Find the layers that lose accuracy, worst first",
    "quantkit layers model.onnx --data images/train",
    "quantkit layers model.onnx --against int8.onnx --data val --html layers.html",
    "quantkit layers model.onnx --data images --limit 9000 --shard 3/64 -o run",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.scale_files
@click.option("--against", metavar="PATH", type=options.PATH, help="Q/DQ model derived from MODEL by any tool.")
@options.data_choice("batch_size", "threads", default_limit=128)
@options.layer_selection()
@options.tensorrt_version
@click.option(
    "--top", metavar="N", type=WHOLE, default=10, show_default=True, help="Number of layers and tensors to show."
)
@click.option(
    "--exclude-file",
    "--output",
    "-o",
    metavar="FILE",
    type=options.PLACE,
    help="Write the worst layers to this file, for --exclude @FILE of quantize and build. With --shard: a folder, or a "
    "URL such as s3://bucket/run.",
)
@click.option("--keep", metavar="N", type=WHOLE, help=f"Number of layers in that file. Default: {KEPT}.")
@click.option("--keep-db", metavar="DB", type=NUMBER, help="As many layers as raise the outputs to this SQNR.")
@options.html
@options.shard
@options.merge_shards
@worker_choice
@click.option(
    "--parity",
    is_flag=True,
    help="Build an engine of the --against model with its tensors as outputs, and compare them with onnxruntime's.",
)
@options.device
@options.force
@options.printing_tables
def layers(
    model: Path,
    scales: ScaleFiles,
    against: Path | None,
    samples: options.DataChoice,
    selection: options.LayerSelection,
    exclude_file: Path | str | None,
    division: WorkerChoice,
    force: bool,
    printing: Printing,
    **own: Any,
) -> None:
    """Show where quantizing MODEL loses accuracy: tensor by tensor and layer by layer, worst first.

    With statistics alone, the errors of tensors are estimated. With --data each layer is quantized alone, and left out
    of the quantized model, and layers are ranked by the effect on the outputs. To divide the work, run the command with
    each --shard, and once with --merge.
    """
    from quantkit.sensitivity.subject import load_float_network
    from quantkit.values import check_number

    check_number("--top", own["top"], 1)
    source, place = load_float_network(model), exclude_file
    if scales.stats is None and scales.table is None and against is None:
        scales = find_scales(model, needed=True, tables=samples.data is not None)
    sources = {"statistics": scales.stats, "table": scales.table, "against": against}
    refuse_unused_layers_options(sources, samples.data, place is not None, own)
    chosen = layers_options(samples, selection, own, force=force, writes=place is not None)
    if own["shard"] is not None:
        division.refuse_for_shard(own["shard"])
        measure_part(source, samples, sources, chosen, place, own["shard"], printing)
        return
    if isinstance(place, str):
        raise UsageError(f"cannot write the worst layers to {place}", remedy="give a file on this machine")
    parts = prepare_layers_files(model, samples, sources, place, own["html"], division, force=force)
    chosen = replace(chosen, **division.keywords(), parts=parts)
    result, engine = measure_whole(model if division.divides else source, samples, sources, chosen, own, printing)
    written = write_layers_files(result, place, own["html"], parts, force=force)
    for text in result.warnings:
        warn(text)
    printing.print_result(
        result,
        lambda found: layers_document(found, engine, written),
        lambda found: print_sensitivity(found, engine, own["top"], written),
        rows=own["top"],
    )


def prepare_layers_files(
    model: Path,
    samples: options.DataChoice,
    sources: Mapping[str, Path | None],
    exclude_file: Path | None,
    html: Path | None,
    division: WorkerChoice,
    *,
    force: bool,
) -> Path | None:
    """Return the folder in which the results of workers wait, if there is one. UsageError, StaleError, OutputError."""
    from quantkit.evaluation.files import refuse_unwritable

    read = (model, *sources.values(), samples.data, samples.preprocess)
    refuse_unwritable({"--exclude-file": exclude_file, "--html": html}, read=read, force=force)
    return division.work_of(exclude_file, force=force)


def measure_whole(
    model: Path | Model,
    samples: options.DataChoice,
    sources: Mapping[str, Any],
    chosen: LayersOptions,
    own: dict[str, Any],
    printing: Printing,
) -> tuple[Sensitivity, Parity | None]:
    """Measure the layers while a spinner is shown, or a bar for workers; compare with an engine if asked for."""
    from quantkit.cli.terminal.progress import ProgressBar, Spinner
    from quantkit.sensitivity.layers import layers as run

    hidden, divides = printing.hides_progress, chosen.placement.divides
    spinner = Spinner(hidden=hidden)
    bar = ProgressBar(hidden=hidden, about="measuring", then=spinner.__enter__, stopping=STOPPING) if divides else None
    with ExitStack() as shown:
        shown.push(spinner)
        if bar is None:  # which shows the spinner when it is done
            spinner.__enter__()
        result = run(
            model,
            **sources,
            data=samples.data,
            preprocess=samples.preprocess,
            options=chosen,
            phase=spinner.phases,
            progress=bar,
        )
        if not own["parity"]:
            return result, None
        return result, measure_parity(sources["against"], samples, own["device"], spinner.phase)


def refuse_unused_layers_options(
    sources: Mapping[str, Path | None], data: str | None, writes: bool, own: dict[str, Any]
) -> None:
    """Raise UsageError for options that would change nothing. writes: whether there is an exclusion file."""
    parity = own["parity"]
    reasons = {} if data else dict.fromkeys(OF_DATA, "it is for --data")
    reasons |= dict.fromkeys(OF_FIGURES, "one shard has totals, and no figures") if own["shard"] is not None else {}
    reasons |= {} if writes else dict.fromkeys(("keep", "keep_db"), "it is for --exclude-file")
    reasons |= {} if sources["table"] else {"min_coverage": "it is for --table"}
    reasons |= {} if parity else {"device": "it is for --parity"}
    if sources["against"]:
        reasons |= dict.fromkeys(("rule", "policy", "tensorrt_version"), "the Q/DQ model already decides it")
    elif sources["table"]:
        reasons["rule"] = "the scales of a table are used unchanged"
    refuse_unused(reasons)
    if parity and not (sources["against"] and data):
        raise UsageError("--parity compares a Q/DQ model with its engine on data", remedy="give --against and --data")


def layers_options(
    samples: options.DataChoice,
    selection: options.LayerSelection,
    own: dict[str, Any],
    *,
    force: bool,
    writes: bool,
) -> LayersOptions:
    """Return the options as a value. UsageError."""
    from quantkit.sensitivity.options import LayersOptions

    keep, keep_db = own["keep"], own["keep_db"]
    if writes and keep is None and keep_db is None and own["shard"] is None:
        keep = KEPT
    return LayersOptions(
        **selection.keywords(), tensorrt_version=own["tensorrt_version"], keep=keep, keep_db=keep_db,
        data=samples.reading(), merge=own["merge"], force=force,
    )  # fmt: skip


def measure_part(
    source: Model,
    samples: options.DataChoice,
    sources: Mapping[str, Any],
    chosen: LayersOptions,
    place: Path | str | None,
    shard: str,
    printing: Printing,
) -> None:
    """Measure the layers on one shard of the samples, and print where its totals are."""
    from quantkit.cli.terminal.progress import ProgressBar
    from quantkit.sensitivity.shards.files import layers_shard

    if place is None:
        raise UsageError("--shard needs the place of all shards", remedy="give a folder or a URL with --output")
    result = layers_shard(
        source,
        samples.data,
        shard,
        place,
        **sources,
        preprocess=samples.preprocess,
        options=chosen,
        progress=ProgressBar(hidden=printing.hides_progress, about="measuring"),
    )
    printing.print_result(result, measured_shard_document, print_measured_shard)


def print_measured_shard(result: MeasuredShard) -> None:
    """Print what one shard was made from, and how many of the run are there."""
    from quantkit.sensitivity.shards.maker import SENSITIVITY

    about = [("data", f"{result.samples:,} samples"), ("layers", f"{result.layers} quantized")]
    print_shard_of_totals(result, about, SENSITIVITY.suffix)


def measured_shard_document(result: MeasuredShard) -> dict[str, Any]:
    """Return one shard for programs."""
    return shard_fields(result.record, result.file, reused=result.reused) | {
        "samples": result.samples,
        "layers": result.layers,
        "seconds": round(result.seconds, 3),
    }


def measure_parity(against: Path | None, samples: options.DataChoice, device: int, phase: Any) -> Parity:
    """Return how the Q/DQ model on onnxruntime compares with its engine on TensorRT."""
    from quantkit.sensitivity.parity import parity

    assert against is not None
    return parity(against, samples.data, samples.preprocess, device=device, phase=phase)


def write_layers_files(
    result: Sensitivity, exclude_file: Path | None, html: Path | None, parts: Path | None, *, force: bool
) -> list[Path]:
    """Write the exclusion file and the report if they are asked for; return their paths.

    parts: the results of workers, which are removed then.
    """
    from quantkit.artifact import text_bytes, write_whole
    from quantkit.executors.work_folder import remove_shards
    from quantkit.sensitivity.exclusion_file import write_exclusions

    written = []
    if exclude_file is not None:
        written.append(write_exclusions(result, exclude_file, force=force))
    if html is not None:
        write_whole(
            html, text_bytes(import_module("quantkit.report.html").sensitivity_page(result)), "--html", force=force
        )
        written.append(html)
    if parts is not None:
        remove_shards(parts)
    return written


def print_sensitivity(result: Sensitivity, engine: Parity | None, top: int, written: Sequence[Path]) -> None:
    """Print the worst layers and tensors, the comparison with the engine, and what is kept in float."""
    from quantkit.numerics import format_db

    for text in result.notes:
        if text not in (*result.warnings, *result.doubts):
            note(text)
    quantized = [layer for layer in result.layers if not layer.kept]
    fields = [("scales", result.source)]
    if result.samples:
        fields += [
            ("outputs", f"{format_db(result.all_db)} with all layers quantized, over {result.samples} samples"),
            ("layers", f"{len(quantized)} quantized, {len(result.layers) - len(quantized)} float"),
        ]
    print_fields(fields)
    if quantized:
        print_heading("layers, worst first: SQNR of the outputs")
        print_layer_rows(quantized[:top])
    print_heading("tensors, worst first" + (" (estimated from histograms)" if not result.samples else ""))
    print_tensor_rows(result.tensors[:top])
    if engine is not None:
        print_line()
        print_fields([("engine", engine.verdict), *(("note", text) for text in engine.notes)])
        rows = [(t.name, format_db(t.sqnr_db)) for t in engine.tensors[:top]]
        print_rows(("tensor", "engine to onnxruntime"), rows)
    if result.kept:
        print_heading(f"kept in float: {len(result.kept)} layers, outputs {format_db(result.kept_db)}")
    if result.statements:
        print_line()
    for text in result.statements:
        print_sentence(text)
    for path in written:
        print_line(f"wrote  {path}")


def print_layer_rows(layers: Sequence[LayerError]) -> None:
    """Print a row for each layer."""
    head = ("layer", "operator", "alone", "without", "gain", "own output")
    rows = [
        (
            f"{layer.node} !" if layer.misfit else layer.node,
            layer.title,
            format_db_number(layer.alone_db),
            format_db_number(layer.without_db),
            signed(layer.gain_db),
            format_db_number(layer.local_db),
        )
        for layer in layers
    ]
    print_rows(head, rows, text=frozenset({1}))
    if any(layer.misfit for layer in layers):
        print_line("!  a scale of its inputs does not fit: quantize again before keeping the layer in float")


def print_tensor_rows(tensors: Sequence[TensorError]) -> None:
    """Print a row for each tensor."""
    rows = [
        (
            t.name,
            "weight" if t.weight else "activation",
            format_db_number(t.sqnr_db),
            f"{t.clipped:.3%}",
            str(t.levels),
            t.rule,
        )
        for t in tensors
    ]
    print_rows(("tensor", "kind", "SQNR", "clipped", "levels", "scale"), rows, text=frozenset({1, 5}))


def format_db_number(value: float) -> str:
    """Return `21.3` for 21.3 dB; `exact` if there is no noise."""
    from quantkit.numerics import format_db

    return format_db(value).removesuffix(" dB")


def layers_document(result: Sensitivity, engine: Parity | None, written: Sequence[Path]) -> dict[str, Any]:
    """Return the result for programs: decibels, null where there is no noise."""
    from quantkit.sensitivity.result import sensitivity_document

    return {
        **sensitivity_document(result),
        "parity": None if engine is None else asdict(engine),
        "files": [str(path) for path in written],
    }
