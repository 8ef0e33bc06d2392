"""The command `quantkit run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments import parsing
from quantkit.cli.arguments.engine_options import tune_time
from quantkit.cli.arguments.parsing import WHOLE
from quantkit.cli.arguments.quantized_type import nodes_of_type, project_type
from quantkit.cli.arguments.registry_option import MetricOption
from quantkit.cli.arguments.verb import verb
from quantkit.cli.arguments.worker_choice import WorkerChoice, worker_choice
from quantkit.cli.terminal.console import OVER_BUDGET, Printing, note, print_fields, print_line, print_sentence, warn
from quantkit.cli.terminal.model_table import (
    overall_tone,
    print_model_table,
    print_statements,
    warn_over_budget,
)
from quantkit.paths import exists

if TYPE_CHECKING:
    from quantkit.project.run import Run
    from quantkit.project.settings import Settings

NAMES = {
    "evaluate.max_drop": "--max-drop",
    "evaluate.limit": "--val-limit",
    "calibrate.limit": "--limit",
    "bench.batches": "--batch",
    "bench.streams": "--streams",
    "build.tune_time": "--tune-time",
    "quantize.type": "--type",
}
"""Key of the settings → the option that errors name instead, for options that can be wrong by themselves."""


@verb(
    "Do it all: calibrate, quantize, build, evaluate, report",
    "quantkit run model.onnx --data images/train --val images/val",
    "quantkit run model.onnx --data train --val val --max-drop 0.5 --no-layers",
)
@click.argument("model", metavar="[MODEL]", type=options.PATH, required=False)
@options.data_choice()
@click.option("--val", metavar="PATH", help="Evaluation data. Default: the calibration data.")
@click.option(
    "--val-limit",
    metavar="N",
    type=WHOLE,
    help="Maximum number of evaluation samples, spread evenly over the sorted list. Default: all.",
)
@options.labels
@options.classes
@click.option(
    "--metric",
    cls=MetricOption,
    metavar="NAME,NAME…",
    help=f"{options.METRICS} The first one decides. Default: {{default}}.",
)
@options.max_drop()
@options.rule()
@project_type
@nodes_of_type("int8")
@nodes_of_type("fp8")
@options.exclude
@options.repair("all that are possible")
@click.option(
    "--precision", metavar="P,P…", help=f"{options.PRECISIONS} Default: fp32,tf32,fp16,int8, and the Q/DQ model."
)
@options.shapes("from the smallest batch size to the largest, optimized for the largest")
@click.option("--batch", metavar="N,N…", help=f"{options.BATCHES} Default: 1,8,32.")
@click.option("--streams", metavar="N,N…", help=f"{options.STREAMS} Default: 1,2.")
@click.option("--gpu/--no-gpu", default=None, help="Require engines, or skip them. Default: build them if possible.")
@tune_time("0 leaves that out. Default: 10, if there is a GPU.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Compile with TensorRT-RTX on the CPU. Default: the Q/DQ model, if TensorRT-RTX is installed.",
)
@click.option("--no-layers", is_flag=True, help="Leave the ranking of layers out of the report.")
@options.tensorrt_version
@worker_choice
@click.option(
    "--config", metavar="FILE", type=options.PATH, help="Project options. Default: quantkit.toml, if it exists."
)
@click.option("--output", "-o", metavar="DIR", help="Folder for all results. Default: MODEL.run beside the model.")
@click.option("--clean", is_flag=True, help="Discard the results of earlier runs.")
@options.printing_tables
def run(
    model: Path | None,
    samples: options.DataChoice,
    config: Path | None,
    division: WorkerChoice,
    clean: bool,
    printing: Printing,
    **own: Any,
) -> int:
    """Do it all: calibrate on --data, quantize, build engines if there is a GPU, evaluate on --val, and report.

    Steps are reused while their inputs and options are unchanged. Options come from quantkit.toml (quantkit init writes
    one); options on the command line override them.
    """
    from quantkit.cli.terminal.run_display import RunDisplay

    with RunDisplay(silent=printing.quiet or printing.as_json, clean=clean) as display:
        from quantkit.project.run import run as run_project
        from quantkit.project.run import run_document

        result = run_project(run_settings(model, config, samples, own | asdict(division)), clean=clean, watcher=display)
    for text in result.warnings:
        warn(text)
    printing.print_result(result, run_document, print_run)
    return 0 if result.evaluation.within_budget else OVER_BUDGET


def print_run(result: Run) -> None:
    """Print steps, accuracy, and the recommendation."""
    for text in result.notes:
        if text not in result.warnings:
            note(text)
    print_fields(
        (step.name, "reused: inputs and options unchanged" if step.reused else f"{step.seconds:.1f} s")
        for step in result.steps
    )
    if result.held_out is not None:
        print_line()
        print_fields(("held out", line) for line in result.held_out.lines)
    print_line()
    print_model_table(result.evaluation)
    print_line()
    print_sentence(result.recommendation, overall_tone(result.evaluation))
    print_statements(result.evaluation, result.recommendation)
    for path in result.files.values():
        print_line(f"file  {path}")
    warn_over_budget(result.evaluation)


def run_settings(model: Path | None, config: Path | None, samples: options.DataChoice, own: dict[str, Any]) -> Settings:
    """Return the settings of the project file, overridden by the command line. UsageError."""
    from quantkit.project.settings import FILE, Settings, override_settings, read_settings

    path = config or Path(FILE)
    base = read_settings(path) if config is not None or exists(path) else Settings()
    repair = own["repair"]
    flags = {
        "model": text_or_none(model),
        "data": samples.data,
        "preprocess": samples.preprocess,
        "rule": own["rule"],
        "output": own["output"],
        "gpu": own["gpu"],
        "compile": own["compile"],
        "workers": own["workers"],
        "on": own["on"],
        "gpus_per_worker": own["gpus_per_worker"] or None,
        "evaluate.data": own["val"],
        "evaluate.limit": own["val_limit"],
        "evaluate.labels": text_or_none(own["labels"]),
        "evaluate.classes": text_or_none(own["classes"]),
        "evaluate.metrics": parsing.parse_names(own["metric"]),
        "evaluate.max_drop": own["max_drop"],
        "evaluate.layers": False if own["no_layers"] else None,
        "calibrate.limit": samples.limit,
        "calibrate.skip_corrupt": samples.skip_corrupt,
        "evaluate.skip_corrupt": samples.skip_corrupt,
        "calibrate.frame_step": samples.frame_step,
        "evaluate.frame_step": samples.frame_step,
        "calibrate.tensorrt_version": own["tensorrt_version"],
        "quantize.type": own["type"],
        # a type goes over the nodes that the file gives it
        "quantize.int8": own["int8"] or (() if own["type"] == "int8" else None),
        "quantize.fp8": own["fp8"] or (() if own["type"] == "fp8" else None),
        "quantize.exclude": own["exclude"] or None,
        "quantize.repairs": () if repair == "none" else parsing.parse_names(repair),
        "build.precisions": parsing.parse_names(own["precision"]),
        "build.shapes": own["shapes"] or None,
        "build.tune_time": own["tune_time"],
        "bench.batches": own["batch"] and parsing.parse_counts(own["batch"], "--batch"),
        "bench.streams": own["streams"] and parsing.parse_counts(own["streams"], "--streams"),
    }
    return override_settings(base, flags, NAMES)


def text_or_none(path: Path | None) -> str | None:
    """Return a path as text; None for None."""
    return None if path is None else str(path)
