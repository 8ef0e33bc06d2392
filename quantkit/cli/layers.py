"""`quantkit layers`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json, print_rows, warn
from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.sensitivity.parity import Parity
    from quantkit.sensitivity.result import LayerError, Sensitivity, TensorError

KEPT = 3
"""Layers of an exclusion file, where nothing else is asked for."""


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.stats
@click.option("--table", metavar="PATH", type=options.PATH, help="Take the scales of a calibration table.")
@click.option(
    "--against", metavar="PATH", type=options.PATH, help="A Q/DQ model that was made of MODEL, by whatever tool."
)
@click.option("--data", metavar="PATH", help="Images, arrays or module:callable: layers are measured on them.")
@options.preprocess
@click.option("--limit", metavar="N", type=int, default=128, show_default=True, help="Samples of the data at most.")
@options.skip_corrupt
@click.option("--rule", metavar="RULE", default="mse", show_default=True, help="How scales come from statistics.")
@click.option("--policy", metavar="tensorrt|conv-only|all", default="tensorrt", show_default=True)
@click.option(
    "--exclude", metavar="NODE|PATTERN|OPERATOR", multiple=True, help="Nodes that are float already; also @FILE."
)
@click.option("--include", metavar="NODE|PATTERN|OPERATOR", multiple=True, help="As for quantize.")
@options.min_coverage
@click.option("--top", metavar="N", type=int, default=10, show_default=True, help="Layers and tensors that are shown.")
@click.option(
    "--exclude-file",
    "-o",
    metavar="FILE",
    type=options.PATH,
    help="Write the worst layers there, for --exclude @FILE of quantize and build.",
)
@click.option("--keep", metavar="N", type=int, help=f"How many layers go into that file. Default: {KEPT}.")
@click.option("--keep-db", metavar="DB", type=float, help="As many as lift the outputs to that SQNR.")
@click.option("--html", "page", metavar="FILE", type=options.PATH, help="A report of all layers and tensors.")
@click.option(
    "--parity",
    is_flag=True,
    help="Build an engine of the --against model that shows its tensors, and compare it with onnxruntime.",
)
@options.device
@options.force
@options.quiet
@options.as_json
def layers(
    model: Path,
    exclude_file: Path | None,
    page: Path | None,
    parity: bool,
    device: int,
    top: int,
    force: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Show where MODEL loses by quantization: tensor by tensor, and layer by layer, worst first.

    With statistics alone the errors of tensors are estimated. With --data each layer is quantized alone, and left out
    of the quantized network, and ranked by what that does to the outputs.
    """
    from quantkit.artifact import write_whole
    from quantkit.cli.progress import Spinner
    from quantkit.cli.quantize import find_scales
    from quantkit.evaluation.files import refuse_unwritable
    from quantkit.sensitivity.exclusion_file import write_exclusions
    from quantkit.sensitivity.layers import layers as run
    from quantkit.sensitivity.layers import load_float_network

    if top < 1:
        raise UsageError(f"--top {top} shows nothing", remedy="give at least 1; --quiet shows nothing")
    source = load_float_network(model)
    if not any(settings[name] for name in ("stats", "table", "against")):
        settings["stats"], settings["table"] = find_scales(model, needed=True, tables=settings["data"] is not None)
    refuse_unused_layers_options(settings, exclude_file is not None, parity)
    given = layers_arguments(settings, keeps=exclude_file is not None)
    read = (model, *(given[name] for name in ("statistics", "table", "against", "data")))
    refuse_unwritable({"--exclude-file": exclude_file, "--html": page}, read=read, force=force)
    with Spinner(hidden=quiet or as_json or not sys.stderr.isatty()) as spinner:
        found = run(source, phase=spinner.phase, **given)
        beside = measure_parity(given, device, spinner.phase) if parity else None
    written = []
    if exclude_file is not None:
        written.append(write_exclusions(found, exclude_file, force=force))
    if page is not None:
        write_whole(page, import_module("quantkit.report.html").sensitivity_page(found).encode(), "--html")
        written.append(page)
    for text in found.warnings:
        warn(text)
    if as_json:
        print_json(layers_document(found, beside, written))
    elif not quiet:
        print_sensitivity(found, beside, top, written)


def refuse_unused_layers_options(settings: dict[str, Any], writes: bool, parity: bool) -> None:
    """UsageError for options that would change nothing."""
    source = click.get_current_context().get_parameter_source
    idle = {} if settings["data"] else dict.fromkeys(("preprocess", "limit", "skip_corrupt"), "it is about --data")
    idle |= {} if writes else dict.fromkeys(("keep", "keep_db"), "it is about --exclude-file")
    idle |= {} if settings["table"] else {"min_coverage": "it is about --table"}
    idle |= {} if parity else {"device": "it is about --parity"}
    if settings["against"]:
        idle |= dict.fromkeys(("rule", "policy"), "a Q/DQ model says itself how it is quantized")
    elif settings["table"]:
        idle["rule"] = "a table is taken as it is"
    for name, why in idle.items():
        if source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} has no effect: {why}", remedy="leave it out")
    if parity and not (settings["against"] and settings["data"]):
        raise UsageError("--parity compares a Q/DQ model with its engine on data", remedy="give --against and --data")


def layers_arguments(settings: dict[str, Any], *, keeps: bool) -> dict[str, Any]:
    """The arguments of `quantkit.layers`. UsageError."""
    from quantkit.data import DataOptions
    from quantkit.sensitivity.exclusion_file import expand_name_files
    from quantkit.sensitivity.layers import LayersOptions

    for name in ("exclude", "include"):
        settings[name] = expand_name_files(settings[name])
    statistics, table, against = (settings.pop(name) for name in ("stats", "table", "against"))
    data, preprocess = settings.pop("data"), settings.pop("preprocess")
    if keeps and settings["keep"] is None and settings["keep_db"] is None:
        settings["keep"] = KEPT
    settings["data"] = DataOptions(limit=settings.pop("limit"), skip_corrupt=bool(settings.pop("skip_corrupt")))
    return {
        "statistics": statistics,
        "table": table,
        "against": against,
        "data": data,
        "preprocess": preprocess,
        "options": LayersOptions(**settings),
    }


def measure_parity(given: dict[str, Any], device: int, phase: Any) -> Parity:
    """The Q/DQ model on onnxruntime and on TensorRT."""
    from quantkit.sensitivity.parity import parity

    return parity(given["against"], given["data"], given["preprocess"], device=device, phase=phase)


def print_sensitivity(found: Sensitivity, beside: Parity | None, top: int, written: Sequence[Path]) -> None:
    """What was found, for people."""
    from quantkit.numerics import format_db

    for text in found.notes:
        if text not in found.warnings:
            note(text)
    quantized = [layer for layer in found.layers if not layer.kept]
    fields = [("scales", found.source)]
    if found.samples:
        fields += [
            ("outputs", f"{format_db(found.all_db)} with everything quantized, over {found.samples} samples"),
            ("layers", f"{len(quantized)} quantized, {len(found.layers) - len(quantized)} float"),
        ]
    print_fields(fields)
    if quantized:
        print("\nlayers, worst first: SQNR of the outputs")
        print_layer_rows(quantized[:top])
    print("\ntensors, worst first" + (" (estimated from histograms)" if not found.samples else ""))
    print_tensor_rows(found.tensors[:top])
    if beside is not None:
        print()
        print_fields([("engine", beside.verdict), *(("note", text) for text in beside.notes)])
        rows = [(t.name, format_db(t.sqnr_db)) for t in beside.tensors[:top]]
        print_rows(("tensor", "engine to onnxruntime"), rows)
    if found.kept:
        print(f"\nkept float: {len(found.kept)} layers, outputs {format_db(found.kept_db)}")
    for path in written:
        print(f"wrote  {path}")


def print_layer_rows(layers: Sequence[LayerError]) -> None:
    """A row for each layer."""
    head = ("layer", "operator", "alone", "without", "gain", "own output")
    rows = [
        (
            f"{layer.node} !" if layer.misfit else layer.node,
            layer.operator,
            format_db_number(layer.alone_db),
            format_db_number(layer.without_db),
            f"{layer.gain_db:+.2f}",
            format_db_number(layer.local_db),
        )
        for layer in layers
    ]
    print_rows(head, rows, text=frozenset({1}))
    if any(layer.misfit for layer in layers):
        print("!  a scale that it reads with does not fit: quantize again before keeping it float")


def print_tensor_rows(tensors: Sequence[TensorError]) -> None:
    """A row for each tensor."""
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
    print_rows(("tensor", "what", "SQNR", "clipped", "levels", "scale"), rows, text=frozenset({1, 5}))


def format_db_number(value: float) -> str:
    """`21.3`; `exact` for no noise."""
    from quantkit.numerics import format_db

    return format_db(value).removesuffix(" dB")


def layers_document(found: Sensitivity, beside: Parity | None, written: Sequence[Path]) -> dict[str, Any]:
    """The result for programs: decibels, null where there is no noise."""
    return {
        "model": found.model,
        "scales_from": found.source,
        "all_db": found.all_db,
        "samples": found.samples,
        "layers": [{**asdict(layer), "misfit": layer.misfit} for layer in found.layers],
        "tensors": [{**asdict(tensor), "misfit": tensor.misfit} for tensor in found.tensors],
        "kept": list(found.kept),
        "kept_db": found.kept_db,
        "parity": None if beside is None else asdict(beside),
        "notes": list(found.notes),
        "warnings": list(found.warnings),
        "provenance": dict(found.provenance),
        "seconds": round(found.seconds, 3),
        "files": [str(path) for path in written],
    }
