"""The inputs of a run: the model, the data with their preprocessing, and the identity of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.artifact import canonical_json, sha256_of, text_bytes
from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.feed import changed_data
from quantkit.data.pictures.find import is_divided, is_remote
from quantkit.data.preprocess_choice import BESIDE, METADATA, PreprocessChoice, choose_spec
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.options import EvaluateOptions, EvaluationRequest
from quantkit.graph import Model, load_model, refuse_changed_model
from quantkit.metrics.registry import default_metric
from quantkit.paths import beside, is_file, is_folder, real_path
from quantkit.project.expected_labels import ExpectedLabels, expect_labels
from quantkit.project.settings import NODE_LISTS, Settings
from quantkit.project.store import refuse_foreign_files
from quantkit.quantization.node_types import describe_float
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.planned_type import plan_types
from quantkit.quantization.quantize import refuse_quantized
from quantkit.regular_file import regular_file_digest
from quantkit.repairs.registry import resolve_repairs
from quantkit.rules import as_rules, rule_in_type
from quantkit.sensitivity.exclusion_file import expand_name_files
from quantkit.tensorrt_version import FIRST_WITHOUT_TABLES, number_text, parse_version, target_version
from quantkit.values import ModelInput, QuantizedType, with_free_batches

QDQ_ENGINE = "qdq"
"""Name of the Q/DQ model's engine among the precisions."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Data with its options and preprocessing.

    stamps: sha256 over the stamps of the files, or None. feed: the samples, of which none was read.
    """

    source: str
    options: DataOptions
    spec: PreprocessChoice
    stamps: str | None
    feed: Feed = field(compare=False)

    @property
    def samples(self) -> int | None:
        """The number of samples; None if only reading them shows it."""
        return self.feed.samples

    @property
    def identity(self) -> dict[str, Any] | None:
        """Everything that determines the samples read; None if that cannot be known."""
        if self.stamps is None:
            return None
        chosen = self.options
        read = [chosen.limit, chosen.shuffle, chosen.seed, chosen.batch_size, chosen.skip_corrupt, chosen.whole]
        read += [chosen.frame_step] if chosen.frame_step > 1 else []
        return {"files": self.stamps, "read": read, "preprocess": self.spec.document}


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that is resolved before the first step.

    version: the TensorRT that table and Q/DQ model are for. labels: those that a metric will read by itself.
    """

    settings: Settings
    model: Model
    calibration: DataSource
    validation: DataSource
    output: Path
    version: str
    notes: tuple[str, ...]
    labels: ExpectedLabels = field(default_factory=ExpectedLabels)

    @property
    def stem(self) -> str:
        """The stem of the names of output files."""
        return self.model.path.stem

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that put the figures in doubt: preprocessing was guessed."""
        return tuple(dict.fromkeys(s.spec.warning for s in (self.calibration, self.validation) if s.spec.warning))

    @property
    def reads_tables(self) -> bool:
        """True if that TensorRT reads calibration tables, and the scales are of INT8."""
        return not self.has_fp8 and int(self.version.partition(".")[0]) < FIRST_WITHOUT_TABLES

    @property
    def has_fp8(self) -> bool:
        """True if operators of the Q/DQ model are FP8."""
        return self.settings.quantize.types.has_fp8

    def published_names(self) -> Mapping[str, str]:
        """Return kind → name of the files in the output folder."""
        made = f"{self.stem}.{self.settings.quantize.types.network_type.value}"
        return {
            "statistics": f"{self.stem}.stats.safetensors",
            "table": f"{self.stem}.calib",
            "model": f"{made}.onnx",
            "compiled": f"{made}.compiled.json",
            "evaluation": "evaluation.json",
            "report": "report.html",
            "map": f"{self.stem}.map.html",
        }

    def all_names(self) -> tuple[str, ...]:
        """Return the names of all files that may be written into the output folder."""
        names = self.published_names()
        engines = [f"{self.stem}.{name}.engine" for name in (*self.settings.build.precisions, QDQ_ENGINE, "tuned")]
        others = [f"{names['table']}.json", f"{names['model']}.data", "speed.json", f"{self.stem}.tuned.onnx"]
        return (*names.values(), *others, *(f"{name}{end}" for name in engines for end in ("", ".json", ".calib")))


def expand_node_files(settings: Settings) -> Settings:
    """Replace `@FILE` in the settings by the lines of the files, which determine the model. UsageError."""
    nodes = settings.quantize
    names = {name: expand_name_files(getattr(nodes, name)) for name in NODE_LISTS}
    return settings.model_copy(update={"quantize": nodes.model_copy(update=names)})


def settle_types(settings: Settings, model: Model, version: str) -> tuple[Settings, tuple[str, ...]]:
    """Return settings that name no nodes where these leave one type, and notes: the run is then that of this type.
    UsageError.

    Nodes that cannot have the type that they were to have are excluded: they stay float, as they do in `quantize`.
    """
    chosen = settings.quantize
    if not chosen.types.named:
        return settings, ()
    options = quantize_options(settings, version)
    choices = plan_types(model, options)
    if len(choices.types) > 1:
        return settings, ()
    own, exclude = options.of_nodes(choices.type, ()), (*chosen.exclude, *choices.kept)
    only = {"type": own.type, "int8": (), "fp8": (), "weights": own.weights, "exclude": exclude}
    settled = settings.model_copy(update={"quantize": chosen.model_copy(update=only)})
    return settled, describe_float(choices.kept, choices.type.other)


def plan_run(settings: Settings) -> RunPlan:
    """Check the settings, read the model, inspect the data. ModelError, DataError, PreprocessError, UsageError."""
    if settings.model is None or settings.data is None:
        missing = "model" if settings.model is None else "data"
        raise UsageError(
            f"no {missing} is given", remedy="run `quantkit run MODEL --data DATA`, or `quantkit init` first"
        )
    refuse_unknown_names(settings)
    model = load_model(settings.model)
    refuse_quantized(model)
    output = Path(settings.output) if settings.output else beside(model.path, f"{model.path.stem}.run")
    calibration, validation = data_sources(settings, model)
    notes = [*([calibration.spec.warning] if calibration.spec.warning else describe_spec(validation.spec))]
    if settings.evaluate.data is None and not reads_other_images(calibration, validation):
        notes.append(
            "accuracy is measured on the calibration data and is optimistic for INT8; pass separate data with --val"
        )
    version = target_version_text(settings.calibrate.tensorrt_version)
    settings, of_types = settle_types(expand_node_files(settings), model, version)
    notes += (*of_types, *check_types(settings, version))
    labels = expect_labels(model, validation.feed, evaluation_request(settings, validation), validation.spec.applied)
    plan = RunPlan(settings, model, calibration, validation, output, version, (*notes, *labels.notes), labels)
    refuse_foreign_files(output, plan.all_names())
    return plan


def describe_spec(spec: PreprocessChoice) -> Sequence[str]:
    """Return a note on preprocessing that was found; empty where none is applied, or it was given."""
    found = spec.applied if spec.source.startswith((BESIDE, METADATA)) else None
    return [] if found is None else [f"preprocessing from {spec.source}: {found.describe()}"]


def reads_other_images(calibration: DataSource, validation: DataSource) -> bool:
    """Return True if the data set has other images to evaluate on than to calibrate with."""
    ours, theirs = calibration.feed.images, validation.feed.images
    if ours is None or theirs is None:
        return is_divided(calibration.source)
    return not ours.is_same_as(theirs)


def evaluation_request(settings: Settings, data: DataSource) -> EvaluationRequest:
    """Return the request that the last step makes of `evaluate`; metrics are empty where they are left to it."""
    wanted = settings.evaluate
    return EvaluationRequest(
        data.source,
        None if wanted.labels is None else Path(wanted.labels),
        data.spec,
        () if wanted.metrics == (default_metric(),) else wanted.metrics,
        EvaluateOptions(data=data.options, classes=wanted.classes, max_drop=wanted.max_drop),
    )


def refuse_changed_inputs(plan: RunPlan) -> None:
    """Raise ModelError or DataError where model or data are no longer those of the plan: a step used something else."""
    refuse_changed_model(plan.model)
    for before, now in zip((plan.calibration, plan.validation), data_sources(plan.settings, plan.model), strict=True):
        if now.stamps != before.stamps:
            raise changed_data(before.source)


def data_sources(settings: Settings, model: Model) -> tuple[DataSource, DataSource]:
    """Return the data for calibration and for evaluation. DataError, PreprocessError, UsageError."""
    chosen, wanted, data = settings.calibrate, settings.evaluate, settings.data
    assert data is not None
    reading = DataOptions(
        limit=chosen.limit,
        shuffle=chosen.shuffle,
        seed=chosen.seed,
        batch_size=chosen.batch_size,
        skip_corrupt=chosen.skip_corrupt,
        frame_step=chosen.frame_step,
    )
    inputs = with_free_batches(model.inputs)
    whole = DataOptions(limit=wanted.limit, skip_corrupt=wanted.skip_corrupt, frame_step=wanted.frame_step, whole=True)
    return (
        data_source(model, model.inputs, data, settings.preprocess, reading),
        data_source(model, inputs, wanted.data or data, settings.preprocess, whole),
    )


def refuse_unknown_names(settings: Settings) -> None:
    """Raise UsageError for names that a later step would refuse after the work of earlier steps."""
    from quantkit.backends.tensorrt.options import Precision

    if settings.rule is not None and len(found := as_rules(settings.rule)) > 1:
        raise UsageError(
            f"{len(found)} rules are given: {settings.rule}", remedy="give one rule for table and Q/DQ model"
        )
    for name in settings.build.precisions:
        Precision.named(name)


def quantize_options(settings: Settings, version: str) -> QuantizeOptions:
    """Return the options of the Q/DQ model but for those of the data. UsageError.

    version: the TensorRT that it is for.
    """
    chosen = settings.quantize
    return QuantizeOptions(
        type=chosen.type,
        int8=chosen.int8,
        fp8=chosen.fp8,
        rule=settings.rule,
        policy=chosen.policy,
        exclude=chosen.exclude,
        include=chosen.include,
        weights=chosen.weights,
        fp16=chosen.fp16,
        repairs=chosen.repairs,
        tensorrt_version=version,
    )


def check_types(settings: Settings, version: str) -> list[str]:
    """Return notes on what a run with FP8 leaves out. UsageError for unknown repairs, and for what FP8 has not.

    version: the TensorRT that the Q/DQ model is for.
    """
    chosen, wanted = settings.quantize, settings.build.precisions
    quantize_options(settings, version)
    alone = QuantizedType.INT8 if chosen.types.named else chosen.types.type
    resolve_repairs(chosen.repairs, statistics=True, data=True, quantized_type=alone)
    if not chosen.types.has_fp8:
        return []
    if settings.rule is not None:
        rule_in_type(as_rules(settings.rule)[0], QuantizedType.FP8)
    if "int8" in wanted and "precisions" in settings.build.model_fields_set:
        raise UsageError(
            "an int8 engine of the float network needs a calibration table, and a run with FP8 makes none: "
            "it would hold scales of INT8",
            remedy="leave int8 out of --precision (the Q/DQ model's engine is built anyway), or give --type int8",
        )
    notes = ["no calibration table is made: it would hold scales of INT8"]
    if settings.gpu is not False and settings.build.tune_time > 0.0:
        notes.append("no engine is tuned by time: that compares engines with INT8 and float layers, none with FP8")
    return notes


def data_source(
    model: Model, inputs: Sequence[ModelInput], source: str, preprocess: str | None, options: DataOptions
) -> DataSource:
    """Return data with its preprocessing resolved. DataError if it is empty.

    inputs: the inputs to read it for. For a fixed batch size, evaluation pads the last batch and calibration drops it.
    """
    spec = choose_spec(preprocess, model, source)
    feed, applied = open_data(source, inputs, spec.spec, options)
    if feed.samples == 0:
        raise DataError(f"{source} is empty", remedy="give at least one sample")
    stamps = [stamp.record for stamp in feed.stamps()]
    place = source if is_remote(source) else str(real_path(source))
    identity = sha256_of(text_bytes(canonical_json([place, stamps]))) if stamps else None
    return DataSource(source, options, spec.with_applied(applied), identity, feed)


def target_version_text(asked: str | None) -> str:
    """Return the version of TensorRT that files are for, as text. UsageError."""
    if asked is not None and parse_version(asked)[0] >= FIRST_WITHOUT_TABLES:
        return asked
    return number_text(target_version(asked).number)


def file_identity(path: str | None) -> str | None:
    """Return the sha256 of a small file, or of all files in a folder; None without a path. DataError."""
    if path is None:
        return None
    place = Path(path)
    try:
        files = sorted(p for p in place.rglob("*") if is_file(p)) if is_folder(place) else [place]
        contents = [[str(p.relative_to(place.parent)), regular_file_digest(p)] for p in files]
        return sha256_of(text_bytes(canonical_json(contents)))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", remedy="check the path") from None
