"""run: everything in one call: statistics, table, Q/DQ model, engines if there is a GPU, evaluation, report.

    statistics ─┬─ tune ───┐
                ├─ table ──┼─ engines ─ bench ─┐
                └─ model ──┼─ layers ─── map ──┴─ report
                           └─ compile

Each step is repeated only if one of its inputs has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.artifact import text_bytes
from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.from_statistics import tables_from
from quantkit.calibration.options import CalibrateOptions
from quantkit.data.feed import changed_data
from quantkit.engines.bench_result import BenchResult
from quantkit.evaluation.compare import read_evaluation
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.json_document import evaluation_json as document_of
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import Evaluation
from quantkit.graph import AnyModel
from quantkit.keywords.option_fields import shows_keywords
from quantkit.metrics.registry import default_metric
from quantkit.progress import NoWatcher, RunWatcher
from quantkit.project.compile_step import compile_step
from quantkit.project.early_checks import refuse_early
from quantkit.project.engine_steps import EngineStepResult, engine_steps
from quantkit.project.inputs import file_identity, plan_run
from quantkit.project.layers_step import LAYERS, layers_step, read_layers
from quantkit.project.map_step import MapSourceSteps, map_step
from quantkit.project.model_step import model_step, read_choice
from quantkit.project.recommendation import recommendation
from quantkit.project.settings import RunFields, Settings, settings_with
from quantkit.project.step_plan import PassForecast, plan_steps
from quantkit.project.steps import CompletedStep, RunSteps
from quantkit.project.store import StepOutcome, StepStore
from quantkit.project.tune_step import tune_step
from quantkit.quantization.choice_record import HeldOutChoice
from quantkit.report.html import evaluation_page
from quantkit.rules import DEFAULT_RULE
from quantkit.statistics import read_statistics, write_statistics
from quantkit.view import Block, RichDisplay

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, slots=True)
class Run(RichDisplay):
    """The result of a run. recommendation: based on accuracy and speed. files: name → path in the output folder."""

    steps: tuple[CompletedStep, ...]
    evaluation: Evaluation
    bench: BenchResult | None
    recommendation: str
    files: Mapping[str, Path]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """The notes that put the figures in doubt."""
    held_out: HeldOutChoice | None = None
    """The choice of rule and repairs of the Q/DQ model; None where nothing was chosen by samples held out."""

    def _view_(self) -> Sequence[Block]:
        return self.recommendation, *self.evaluation._view_()


@shows_keywords(Settings.model_fields)
def run(
    settings: Settings | None = None,
    *,
    clean: bool = False,
    watcher: RunWatcher | None = None,
    **keywords: Unpack[RunFields],
) -> Run:
    """Run all steps for one model, from statistics to the report: `run(model="m.onnx", data="images/", rule="mse")`.

    The other keywords are the keys of `Settings`, and replace those of `settings`; a section is a mapping:
    `evaluate={"data": "val/", "limit": 100}`. clean: delete the outcomes of earlier runs first. watcher: receives the
    progress (`quantkit.progress`).

    Writes statistics, table, Q/DQ model, evaluation and report into the output folder, and engines if they are built.
    Raises the errors of `calibrate`, `quantize`, `build`, `bench` and `evaluate`, UsageError, OutputError.
    """
    plan = plan_run(settings_with(settings, keywords))
    refuse_early(plan)
    store = StepStore(plan.output)
    with store.lock(clean=clean):
        return run_steps(RunSteps(plan, store, watcher or NoWatcher(), plan_steps(plan)), store)


def run_steps(steps: RunSteps, store: StepStore) -> Run:
    """Run all steps and publish their files in the output folder."""
    plan = steps.plan
    statistics = statistics_step(steps)
    table = table_step(steps, statistics)
    model = model_step(steps, statistics)
    compiled = compile_step(steps, model)
    tuned = tune_step(steps, statistics)
    engines = engine_steps(steps, table, model, tuned)
    layers = layers_step(steps, model)
    drawn = map_step(steps, MapSourceSteps(statistics, model, layers, compiled, engines))
    report = report_step(steps, StepOutcomes(statistics, table, model, layers, engines, drawn))
    names = plan.published_names()
    shown = {
        names["statistics"]: statistics,
        names["model"]: model,
        names["evaluation"]: report,
        names["report"]: report,
    }
    if drawn is not None:
        shown[names["map"]] = drawn
    if table is not None:
        shown |= {names["table"]: table, f"{names['table']}.json": table}
    if compiled is not None:
        shown[names["compiled"]] = compiled
    sources = {name: outcome.file(name) for name, outcome in shown.items()}
    sources |= {p.name: p for p in model.folder.iterdir() if p.name.startswith(names["model"])}
    sources |= {path.name: path for path in engines.files}
    published = dict(zip(sources, store.publish(sources), strict=True))
    store.withdraw(plan.stem, published.keys())
    document = published[names["evaluation"]]
    found = read_evaluation(document)
    said = recommendation(found, engines.bench)
    notes = tuple(dict.fromkeys(steps.notes))
    warnings = tuple(dict.fromkeys((*plan.warnings, *found.warnings)))
    chosen = read_choice(model)
    return Run(tuple(steps.taken), found, engines.bench, said, published, notes, warnings, chosen)


def statistics_step(steps: RunSteps) -> StepOutcome:
    """Collect statistics of the calibration data once, on the CPU; every rule is computed from them."""
    plan = steps.plan
    chosen, data = plan.settings.calibrate, plan.calibration

    def work(folder: Path) -> tuple[str, ...]:
        options = CalibrateOptions(
            data=data.options,
            histogram=chosen.histogram,
            backend="onnxruntime",
            exclude=plan.settings.quantize.exclude,
            **steps.division("statistics"),
        )
        made = calibrate(
            steps.for_pass(plan.model), data.source, rule="minmax", preprocess=data.spec, options=options,
            progress=PassForecast(steps),
        )  # fmt: skip
        assert made.statistics is not None, "bug in quantkit: onnxruntime returned no statistics"
        write_statistics(made.statistics, folder / plan.published_names()["statistics"])
        return (*made.warnings, *made.notes)

    known = data.identity
    inputs = known and {"model": plan.model.sha256, "data": known, "histogram": chosen.histogram}
    if inputs and (excluded := plan.settings.quantize.exclude):  # they decide which tensors need a scale
        inputs = {**inputs, "exclude": excluded}
    return steps.execute("statistics", inputs, work)


def table_step(steps: RunSteps, statistics: StepOutcome) -> StepOutcome | None:
    """Make the calibration table; None for a TensorRT that does not read tables."""
    plan = steps.plan
    if not plan.reads_tables:
        return None
    names = plan.published_names()
    rule = plan.settings.rule or DEFAULT_RULE

    def work(folder: Path) -> tuple[str, ...]:
        source = statistics.file(names["statistics"])
        tables_from(source, rule, output=folder / names["table"], tensorrt_version=plan.version)
        return ()

    return steps.execute("table", {"statistics": statistics.digest, "rule": rule, "TensorRT": plan.version}, work)


@dataclass(frozen=True, slots=True)
class StepOutcomes:
    """The outcomes of all steps before the report."""

    statistics: StepOutcome
    table: StepOutcome | None
    model: StepOutcome
    layers: StepOutcome | None
    engines: EngineStepResult
    map: StepOutcome | None


def report_step(steps: RunSteps, of: StepOutcomes) -> StepOutcome:
    """Evaluate all models on the same samples and write the report."""
    plan, engines = steps.plan, of.engines
    names, wanted, data = plan.published_names(), plan.settings.evaluate, plan.validation
    others: list[AnyModel] = []
    if of.table is not None and not engines.files:
        others.append(f"{plan.model.path}+{of.table.file(names['table'])}")
    others += engines.engines
    given = {path: file_identity(path) for path in (wanted.labels, wanted.classes) if path is not None}

    def work(folder: Path) -> tuple[str, ...]:
        made = evaluate(
            [steps.for_pass(plan.model), steps.for_pass(steps.network_of(of.model)), *others],
            data.source,
            labels=wanted.labels,
            preprocess=data.spec,
            metrics=None if wanted.metrics == (default_metric(),) else wanted.metrics,
            options=EvaluateOptions(
                data=data.options, classes=wanted.classes, max_drop=wanted.max_drop, **steps.division("report")
            ),
            progress=steps.progress(then="intervals and verdict"),
        )
        for path, digest in given.items():
            if file_identity(path) != digest:
                raise changed_data(path)
        plan.labels.refuse_changed()
        steps.watcher.phases("writing the report")
        first = recommendation(made, engines.bench)
        shown = replace(made, verdict=(first, *made.verdict), notes=(*choice_notes(of.model), *made.notes))
        page = evaluation_page(
            shown,
            sensitivity=None if of.layers is None else read_layers(of.layers.file(LAYERS)),
            statistics=read_statistics(of.statistics.file(names["statistics"])),
            bench=engines.bench,
            links={names["map"]: "Map of the network"} if of.map else {},
        )
        text = json.dumps(document_of(made), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / names["evaluation"]).write_bytes(text_bytes(f"{text}\n"))
        (folder / names["report"]).write_bytes(text_bytes(page))
        return made.notes

    known = data.identity
    inputs: dict[str, Any] | None = None
    if known is not None and wanted.is_reproducible(labels_known=plan.labels.identity is not None):
        inputs = {
            "model": plan.model.sha256,
            "Q/DQ model": of.model.digest,
            "statistics": of.statistics.digest,
            "table": of.table.digest if of.table else None,
            "layers": of.layers.digest if of.layers else None,
            "map": of.map is not None,
            "engines": engines.digest,
            "labels": wanted.labels and given[wanted.labels],
            "classes": wanted.classes and given[wanted.classes],
            "labels found": plan.labels.identity,
            "data": known,
            "options": wanted.model_dump(mode="json"),
        }
    return steps.execute("report", inputs, work)


def choice_notes(model: StepOutcome) -> tuple[str, ...]:
    """Return what the data chose for the Q/DQ model, for the report. QuantkitError."""
    choice = read_choice(model)
    return () if choice is None else tuple(f"the Q/DQ model: {line}" for line in choice.lines)


def run_document(made: Run) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {
        "recommendation": made.recommendation,
        "steps": [asdict(step) for step in made.steps],
        "files": {name: str(path) for name, path in made.files.items()},
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "held_out": made.held_out and made.held_out.document,
        "evaluation": document_of(made.evaluation),
        "bench": None if made.bench is None else asdict(made.bench),
    }
