"""The command `quantkit evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.arguments.worker_choice import STOPPING, WorkerChoice, worker_choice
from quantkit.cli.terminal.console import (
    OVER_BUDGET,
    Printing,
    note,
    print_fields,
    print_heading,
    print_line,
    print_rows,
    warn,
)
from quantkit.cli.terminal.model_table import print_model_table, print_statements, warn_over_budget
from quantkit.cli.terminal.scene_tables import print_scene_tables
from quantkit.cli.terminal.shard_lines import print_shard_of_totals, shard_fields
from quantkit.errors import UsageError
from quantkit.view import percent_text, signed

if TYPE_CHECKING:
    from quantkit.evaluation.options import EvaluateOptions
    from quantkit.evaluation.result import Evaluation, ModelScore
    from quantkit.evaluation.shards.files import EvaluatedShard

SHOWN = 5
LEVEL = 0.05
"""A drop with p below this is called larger than chance."""


@verb(
    "Measure accuracy of models on the same samples",
    "quantkit evaluate model.onnx model.int8.onnx --data val --html report.html",
    "quantkit evaluate model.onnx model.onnx+model.calib --data val --max-drop 0.5",
)
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@options.data_choice("batch_size", "threads", limit="all", required=True)
@options.labels
@options.classes
@click.option("--no-labels", is_flag=True, help="Compare outputs only.")
@options.metric()
@click.option("--names", metavar="NAME,NAME…", help="Names for the models. Default: their file names.")
@options.max_drop()
@click.option(
    "--output",
    "-o",
    metavar="FILE.json",
    type=options.PLACE,
    help="Write the result, for quantkit compare. With --shard: a folder, or a URL such as s3://bucket/run.",
)
@options.html
@options.shard
@options.merge_shards
@worker_choice
@options.provider
@options.min_coverage
@options.device
@options.allow_code
@options.force
@options.printing_tables
def evaluate(
    models: tuple[str, ...],
    samples: options.DataChoice,
    labels: Path | None,
    output: Path | str | None,
    html: Path | None,
    shard: str | None,
    division: WorkerChoice,
    force: bool,
    printing: Printing,
    **own: Any,
) -> int:
    """Evaluate MODELs on the same samples; the first is the reference.

    A MODEL is a float or Q/DQ ONNX model, a TensorRT engine, or model.onnx+model.calib, which simulates INT8 as
    TensorRT would run it with that table. Labels are class folders, a file, an array, or boxes, outlines, keypoints or
    class maps where data sets have them; without labels only outputs are compared. To divide the work, run the command
    with each --shard, and once with --merge.
    """
    if shard is not None:
        division.refuse_for_shard(shard)
        return evaluate_part(models, samples, labels, output, shard, force, printing, own)
    if isinstance(output, str):
        raise UsageError(f"cannot write the result to {output}", remedy="give a file on this machine")
    from quantkit.evaluation.files import refuse_unwritable, write_evaluation
    from quantkit.evaluation.json_document import evaluation_json
    from quantkit.executors.work_folder import remove_shards

    networks = [part for text in models for part in (text, *text.rpartition("+")[::2])]
    read = (*networks, samples.data, samples.preprocess, labels, own["classes"])
    refuse_unwritable({"--output": output, "--html": html}, read=read, force=force)
    parts = division.work_of(output, force=force)
    chosen = replace(evaluate_options(samples, own), **division.keywords(), parts=parts, force=force)
    division.note_gpus(own["provider"], own["device"], quiet=printing.quiet)
    result = run_evaluation(models, samples, labels, own["metric"], chosen, printing)
    pages = {} if html is None else {html: evaluation_report(result)}
    result = write_evaluation(result, output, pages, force=force)
    if parts is not None:
        remove_shards(parts)
    for text in result.warnings:
        warn(text)
    printing.print_result(result, evaluation_json, print_evaluation)
    return 0 if result.within_budget else OVER_BUDGET


def run_evaluation(
    models: tuple[str, ...],
    samples: options.DataChoice,
    labels: Path | None,
    metrics: tuple[str, ...],
    chosen: EvaluateOptions,
    printing: Printing,
) -> Evaluation:
    """Evaluate MODELs while a bar is shown, and a spinner after the pass."""
    from quantkit.cli.terminal.progress import ProgressBar, Spinner
    from quantkit.evaluation.evaluate import evaluate as run

    hidden, stopping = printing.hides_progress, STOPPING if chosen.placement.divides else ""
    spinner = Spinner(hidden=hidden)
    spinner.phase("comparing")
    try:
        return run(
            models,
            samples.data,
            labels=labels,
            preprocess=samples.preprocess,
            metrics=metrics,
            options=chosen,
            progress=ProgressBar(hidden=hidden, about="evaluating", then=spinner.__enter__, stopping=stopping),
        )
    finally:
        spinner.__exit__()


def evaluate_part(
    models: tuple[str, ...],
    samples: options.DataChoice,
    labels: Path | None,
    output: Path | str | None,
    shard: str,
    force: bool,
    printing: Printing,
    own: dict[str, Any],
) -> int:
    """Evaluate MODELs on one shard of the samples, and print where its totals are."""
    from quantkit.cli.terminal.progress import ProgressBar
    from quantkit.evaluation.shards.files import evaluate_shard

    refuse_unused(dict.fromkeys(("html", "max_drop", "as_markdown"), "one shard has totals, and no figures"))
    if output is None:
        raise UsageError("--shard needs the place of all shards", remedy="give a folder or a URL with --output")
    result = evaluate_shard(
        models,
        samples.data,
        shard,
        output,
        labels=labels,
        preprocess=samples.preprocess,
        metrics=own["metric"],
        options=replace(evaluate_options(samples, own), force=force),
        progress=ProgressBar(hidden=printing.hides_progress, about="evaluating"),
    )
    printing.print_result(result, shard_document, print_evaluated_shard)
    return 0


def print_evaluated_shard(result: EvaluatedShard) -> None:
    """Print what one shard was made from, and how many of the run are there."""
    from quantkit.evaluation.shards.format import EVALUATION
    from quantkit.evaluation.verdict import count_samples

    about = [("data", count_samples(result.samples)), ("models", ", ".join(result.models))]
    print_shard_of_totals(result, about, EVALUATION.suffix)


def shard_document(result: EvaluatedShard) -> dict[str, Any]:
    """Return one shard for programs."""
    return shard_fields(result.record, result.file, reused=result.reused) | {
        "samples": result.samples,
        "models": list(result.models),
        "seconds": round(result.seconds, 3),
    }


def evaluation_report(result: Evaluation) -> bytes:
    """Return the HTML report."""
    from quantkit.artifact import text_bytes
    from quantkit.report.html import evaluation_page

    return text_bytes(evaluation_page(result))


def evaluate_options(samples: options.DataChoice, own: dict[str, Any]) -> EvaluateOptions:
    """Return the options as a value. UsageError."""
    from quantkit.evaluation.options import EvaluateOptions

    return EvaluateOptions(
        data=samples.reading(),
        classes=own["classes"],
        without_labels=own["no_labels"],
        max_drop=own["max_drop"],
        names=tuple(own["names"].split(",")) if own["names"] else (),
        provider=own["provider"],
        device=own["device"],
        allow_code=own["allow_code"],
        min_coverage=own["min_coverage"],
        merge=own["merge"],
    )


def print_evaluation(result: Evaluation) -> None:
    """Print the figures of all models, and the verdict."""
    for text in result.notes:
        if text not in (*result.warnings, *result.doubts):
            note(text)
    from quantkit.evaluation.verdict import count_samples

    known = result.provenance
    rate = result.samples * len(result.models) / max(result.seconds, 1e-9)
    print_fields(
        [
            ("data", f"{count_samples(result.samples)} of {known['data']['source']}"),
            ("labels", known["labels"] or "none used"),
            ("prepared", described_spec(known)),
            ("reference", f"{result.reference.name} ({result.reference.kind.value})"),
            *speed_fields(result),
            ("time", f"{result.seconds:.1f} s, {rate:,.0f} samples/s"),
        ]
    )
    print_line()
    print_model_table(result)
    several = len(result.candidates) > 1
    for model in result.candidates:
        of_model = f" of {model.name}" if several else ""
        print_class_drops(model, of_model)
        print_scene_tables(model, of_model)
        print_changed_samples(model, of_model, f", if {result.scores} holds classes" if result.scores_assumed else "")
    if result.statements:
        print_line()
    print_statements(result)
    for path in result.files:
        print_line(f"wrote  {path}")
    warn_over_budget(result)


def described_spec(known: Mapping[str, Any]) -> str:
    """Return how images were prepared, and where that is from."""
    from quantkit.preprocess import parse_preprocess

    spec = known["preprocess"]
    return f"{parse_preprocess(spec, 'the evaluation').describe() if spec else 'none'} ({known['preprocess_from']})"


def speed_fields(result: Evaluation) -> list[tuple[str, str]]:
    """Return how fast each model ran, and on what."""
    rows = []
    for model in result.models:
        if model.speed is not None:
            alone = f", {model.speed.latency_ms:.3f} ms for {model.speed.batch}" if model.speed.latency_ms else ""
            rows.append(("samples/s", f"{model.speed.samples_per_second:,.0f} by {model.name}{alone}"))
    places = sorted({model.speed.where for model in result.models if model.speed})
    return [*rows, ("on", "; ".join(places))] if places else rows


def print_class_drops(model: ModelScore, of_model: str) -> None:
    """Print the classes that drop by more than chance, if any."""
    worst = [drop for drop in model.classes if drop.p < LEVEL and drop.drop > 0]
    if worst:
        print_heading(f"classes{of_model} that drop by more than chance")
        print_rows(
            ("class", "samples", "reference", "here", "drop", "p"),
            [
                (
                    c.name,
                    str(c.count),
                    f"{percent_text(c.reference)}%",
                    f"{percent_text(c.candidate)}%",
                    signed(c.drop),
                    f"{c.p:.2g}",
                )
                for c in worst[:SHOWN]
            ],
        )
    if len(worst) > SHOWN:
        print_line(f"… {len(worst) - SHOWN} more (--json lists all)")


def print_changed_samples(model: ModelScore, of_model: str, condition: str) -> None:
    """Print samples whose prediction or score differs from the reference's, if any. condition: if they are such."""
    if not model.changed:
        return
    noun = "prediction" if model.agreement is not None else "score"
    plural, verb = ("", "changes") if model.changed_samples == 1 else ("s", "change")
    print_heading(f"{model.changed_samples:,} {noun}{plural}{of_model} {verb}{condition}")
    print_rows(
        ("sample", "label", "reference", "", "here", ""),
        [
            (
                c.sample,
                c.label,
                c.reference,
                format_confidence(c.reference_confidence),
                c.candidate,
                format_confidence(c.candidate_confidence),
            )
            for c in model.changed[:SHOWN]
        ],
        text=frozenset({1, 2, 4}),
    )


def format_confidence(confidence: float) -> str:
    """Return a confidence in percent; empty for NaN."""
    return f"{confidence:.0%}" if confidence == confidence else ""
