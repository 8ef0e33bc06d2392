"""run: the whole way in one call: statistics, table, Q/DQ model, engines where there is a GPU, evaluation, report.

    statistics ─┬─ table ──┬─ engines ─ bench ─┐
                └─ model ──┴─ layers ──────────┴─ report

Each step is done again only when something that decides about it has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.artifact import text_bytes
from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.from_statistics import tables_from
from quantkit.calibration.options import CalibrateOptions
from quantkit.engines.bench_result import BenchResult
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.json_document import evaluation_json as document_of
from quantkit.evaluation.json_document import parse_evaluation
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import Evaluation
from quantkit.progress import NoProgress, Progress
from quantkit.project.early_checks import refuse_early
from quantkit.project.engine_steps import EngineStepResult, engine_steps
from quantkit.project.inputs import file_identity, plan_run
from quantkit.project.layers_step import LAYERS, layers_step, read_layers
from quantkit.project.recommendation import recommendation
from quantkit.project.settings import Settings
from quantkit.project.steps import CompletedStep, RunSteps
from quantkit.project.store import StepOutcome, StepStore
from quantkit.quantization.quantize import QuantizeOptions, quantize
from quantkit.repairs.registry import needs_data, resolve_repairs
from quantkit.report.html import evaluation_page
from quantkit.statistics import read_statistics, write_statistics
from quantkit.view import Block, RichDisplay

DEFAULT_RULE = "mse"
"""Of table and Q/DQ model: it lost least on every network that was measured (benchmarks/results/accuracy.md)."""


@dataclass(frozen=True, slots=True)
class Run(RichDisplay):
    """What a run ends with. recommendation: one sentence out of accuracy and speed. files: what lies in the folder."""

    steps: tuple[CompletedStep, ...]
    evaluation: Evaluation
    bench: BenchResult | None
    recommendation: str
    files: Mapping[str, Path]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Those of the notes that put the figures in doubt."""

    def _view_(self) -> Sequence[Block]:
        return self.recommendation, *self.evaluation._view_()


def run(
    settings: Settings,
    *,
    clean: bool = False,
    phase: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], Progress] = lambda _: NoProgress(),
) -> Run:
    """Go the whole way for one model. clean: forget what earlier runs made. phase: told which step is worked on;
    progress: gives a bar for what takes long.

    Writes statistics, table, Q/DQ model, evaluation and report into the output folder, and engines where they are
    built. Raises what `calibrate`, `quantize`, `build`, `bench` and `evaluate` raise, UsageError, OutputError.
    """
    plan = plan_run(settings)
    refuse_early(plan)
    store = StepStore(plan.output)
    with store.held(clean=clean):
        return run_steps(RunSteps(plan, store, phase, progress), store)


def run_steps(steps: RunSteps, store: StepStore) -> Run:
    """All steps, and their files where the user looks for them."""
    plan = steps.plan
    statistics = statistics_step(steps)
    table = table_step(steps, statistics)
    model = model_step(steps, statistics)
    engines = engine_steps(steps, table, model)
    layers = layers_step(steps, model)
    report = report_step(steps, StepOutcomes(statistics, table, model, layers, engines))
    names = plan.published()
    shown = {
        names["statistics"]: statistics,
        names["model"]: model,
        names["evaluation"]: report,
        names["report"]: report,
    }
    if table is not None:
        shown |= {names["table"]: table, f"{names['table']}.json": table}
    sources = {name: outcome.file(name) for name, outcome in shown.items()}
    sources |= {p.name: p for p in model.folder.iterdir() if p.name.startswith(names["model"])}
    sources |= {path.name: path for path in engines.files}
    published = dict(zip(sources, store.publish(sources), strict=True))
    store.withdraw(plan.stem, published.keys())
    document = published[names["evaluation"]]
    found = parse_evaluation(json.loads(document.read_text(encoding="utf-8")), str(document))
    said = recommendation(found, engines.bench)
    notes = tuple(dict.fromkeys(steps.notes))
    return Run(tuple(steps.taken), found, engines.bench, said, published, notes, (*plan.warnings, *found.warnings))


def statistics_step(steps: RunSteps) -> StepOutcome:
    """Count the calibration data once, on the processor: every rule follows from it."""
    plan = steps.plan
    chosen, data = plan.settings.calibrate, plan.calibration

    def work(folder: Path) -> tuple[str, ...]:
        options = CalibrateOptions(data=data.options, histogram=chosen.histogram, backend="onnxruntime")
        made = calibrate(
            plan.model.path, data.source, rules="minmax", preprocess=data.spec.spec, options=options,
            progress=steps.progress("calibrating"),
        )  # fmt: skip
        assert made.statistics is not None, "bug in quantkit: onnxruntime gives statistics"
        write_statistics(made.statistics, folder / plan.published()["statistics"])
        return (*made.warnings, *made.notes)

    known = data.identity
    inputs = known and {"model": plan.model.sha256, "data": known, "histogram": chosen.histogram}
    return steps.take("statistics", inputs, work)


def table_step(steps: RunSteps, statistics: StepOutcome) -> StepOutcome | None:
    """The calibration table; none for a TensorRT that reads none."""
    plan = steps.plan
    if not plan.tables:
        return None
    names = plan.published()
    rule = plan.settings.rule or DEFAULT_RULE

    def work(folder: Path) -> tuple[str, ...]:
        source = statistics.file(names["statistics"])
        tables_from(source, rule, output=folder / names["table"], tensorrt_version=plan.version)
        return ()

    return steps.take("table", {"statistics": statistics.digest, "rule": rule, "TensorRT": plan.version}, work)


def model_step(steps: RunSteps, statistics: StepOutcome) -> StepOutcome:
    """The Q/DQ model."""
    plan = steps.plan
    names, chosen, data = plan.published(), plan.settings.quantize, plan.calibration
    rule = plan.settings.rule or DEFAULT_RULE
    repairs = resolve_repairs(chosen.repairs, statistics=True, data=True)
    runs_network = needs_data(repairs)

    def work(folder: Path) -> tuple[str, ...]:
        options = QuantizeOptions(
            rule=rule,
            policy=chosen.policy,
            exclude=chosen.exclude,
            include=chosen.include,
            weights=chosen.weights,
            fp16=chosen.fp16,
            repairs=repairs,
            data=data.options,
            tensorrt_version=plan.version,
        )
        made = quantize(
            plan.model.path,
            folder / names["model"],
            statistics=statistics.file(names["statistics"]),
            data=data.source if runs_network else None,
            preprocess=data.spec.spec,
            options=options,
        )
        return made.notes

    known = data.identity if runs_network else {}
    inputs: dict[str, Any] | None = None
    if known is not None:
        about = {"model": plan.model.sha256, "statistics": statistics.digest, "rule": rule, "TensorRT": plan.version}
        inputs = about | {"data": known, "options": chosen.model_dump(mode="json")}
    return steps.take("model", inputs, work)


@dataclass(frozen=True, slots=True)
class StepOutcomes:
    """What a report tells of."""

    statistics: StepOutcome
    table: StepOutcome | None
    model: StepOutcome
    layers: StepOutcome | None
    engines: EngineStepResult


def report_step(steps: RunSteps, of: StepOutcomes) -> StepOutcome:
    """Accuracy of everything on the same samples, and the page."""
    plan, engines = steps.plan, of.engines
    names, wanted, data = plan.published(), plan.settings.evaluate, plan.validation
    subjects = [str(plan.model.path), str(of.model.file(names["model"]))]
    if of.table is not None and not engines.files:
        subjects.append(f"{plan.model.path}+{of.table.file(names['table'])}")
    subjects += [str(path) for path in engines.engines]

    def work(folder: Path) -> tuple[str, ...]:
        made = evaluate(
            subjects,
            data.source,
            labels=wanted.labels,
            preprocess=data.spec.spec,
            metrics=None if wanted.metrics == ("top1",) else wanted.metrics,
            options=EvaluateOptions(data=data.options, classes=wanted.classes, max_drop=wanted.max_drop),
            progress=steps.progress("evaluating"),
        )
        first = recommendation(made, engines.bench)
        told = replace(made, verdict=(first, *made.verdict))
        page = evaluation_page(
            told,
            sensitivity=None if of.layers is None else read_layers(of.layers.file(LAYERS)),
            statistics=read_statistics(of.statistics.file(names["statistics"])),
            bench=engines.bench,
        )
        text = json.dumps(document_of(made), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / names["evaluation"]).write_bytes(text_bytes(f"{text}\n"))
        (folder / names["report"]).write_bytes(text_bytes(page))
        return made.notes

    known = data.identity
    inputs: dict[str, Any] | None = None
    if known is not None and wanted.tells_all:
        inputs = {
            "model": plan.model.sha256,
            "Q/DQ model": of.model.digest,
            "statistics": of.statistics.digest,
            "table": of.table.digest if of.table else None,
            "layers": of.layers.digest if of.layers else None,
            "engines": engines.digest,
            "labels": file_identity(wanted.labels),
            "classes": file_identity(wanted.classes),
            "data": known,
            "options": wanted.model_dump(mode="json"),
        }
    return steps.take("report", inputs, work)


def run_document(made: Run) -> dict[str, Any]:
    """The result for programs."""
    return {
        "recommendation": made.recommendation,
        "steps": [asdict(step) for step in made.steps],
        "files": {name: str(path) for name, path in made.files.items()},
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "evaluation": document_of(made.evaluation),
        "bench": None if made.bench is None else asdict(made.bench),
    }
