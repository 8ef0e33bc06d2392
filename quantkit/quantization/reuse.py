"""Reuse of a Q/DQ model that an earlier call wrote: its metadata say what it was made from, and what was done.

The record holds digests of contents, no paths and no dates, so that the same inputs give the same file everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.artifact import Digest, sha256_of
from quantkit.backends.trial_run import Trial
from quantkit.calibration.recorded_table import read_recorded_table
from quantkit.calibration.reuse import REMEDY, refuse_changed
from quantkit.data import open_data
from quantkit.data.feed import changed_data
from quantkit.data.pictures.find import is_remote
from quantkit.document import DocumentType
from quantkit.errors import ModelError, QuantkitError, StaleError
from quantkit.gpu_profile.profile import load_profile, profile_text
from quantkit.graph import Model, load_model, saved_files
from quantkit.graph.identity import model_identity
from quantkit.graph.model import default_opset
from quantkit.paths import exists
from quantkit.preprocess import Preprocess
from quantkit.qdq.float_reason import FloatReason
from quantkit.qdq.insertion import WeightForm
from quantkit.quantization.choice_record import HeldOutChoice
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.result import Quantization
from quantkit.regular_file import regular_file_digest
from quantkit.repairs.repair import RepairReport
from quantkit.rules import DEFAULT_RULE, as_rules
from quantkit.staging import refuse_existing
from quantkit.statistics import Statistics, statistics_bytes
from quantkit.table import Coverage
from quantkit.values import NetworkType, QuantizedType

if TYPE_CHECKING:
    import onnx

RUN_KEY = "quantkit.quantize.run"
"""The metadata that hold the record."""
DIGESTS = frozenset({"network", "statistics", "table", "data", "order of the data", "GPU profile"})
"""Inputs whose values are digests, which are not shown to users."""


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """The record: the inputs by the names that users know, the identity of the written model, and the result."""

    inputs: dict[str, Any]
    written: str
    pairs: dict[str, float]
    weights: tuple[str, ...]
    left: dict[str, FloatReason]
    source: str
    rules: dict[str, str]
    coverage: Coverage | None
    folded: tuple[str, ...]
    repairs: dict[str, RepairReport]
    notes: tuple[str, ...]
    int8_layers: tuple[int, int]
    fp8_layers: int
    trial: Trial | None
    form: WeightForm
    type: NetworkType
    types: dict[str, QuantizedType]
    also_fp8: dict[str, float]
    held_out: HeldOutChoice | None = None


RUNS = DocumentType[StoredQuantization](
    StoredQuantization, "a record of quantkit quantize", ModelError, "quantize it again", nonfinite=True
)


@dataclass(frozen=True, slots=True)
class QuantizationInputs:
    """Everything that a Q/DQ model depends on. stamps: those of the samples' files when their content was read."""

    parts: Mapping[str, Any]
    stamps: tuple[Any, ...] = ()


def quantization_inputs(
    source: Model,
    statistics: str | os.PathLike[str] | Statistics | None,
    table: str | os.PathLike[str] | None,
    data: NetworkSamples | None,
    options: QuantizeOptions,
) -> QuantizationInputs | None:
    """Return the inputs of a call. DataError.

    None where they cannot be known: samples from a stream, and files that cannot be read, which the work will refuse.
    """
    samples, stamps = samples_identity(source, data)
    if samples is None:
        return None
    try:
        scales = None if table is None else read_recorded_table(Path(table)).sha256
        known = {"statistics": statistics_digest(statistics), "table": scales}
    except (OSError, QuantkitError):
        return None
    parts = {
        "quantkit": __version__,
        "network": source.sha256,
        **known,
        "rule": None if table else rule_names(options, data),
        "type": options.type.value,
        **({"INT8 layers": sorted(options.int8)} if options.int8 else {}),
        **({"FP8 layers": sorted(options.fp8)} if options.fp8 else {}),
        "policy": options.policy.value,
        "excluded layers": sorted(options.exclude),
        "included layers": sorted(options.include),
        "weights": options.form.value,
        "FP16": options.fp16,
        "repairs": "default" if options.repairs is None else sorted(options.repairs),
        **profile_identity(options),
        "minimum coverage": options.min_coverage if table else None,
        **samples,
    }
    return QuantizationInputs(parts, stamps)


def rule_names(options: QuantizeOptions, data: NetworkSamples | None) -> list[str] | str:
    """Return the names of the rules that were asked for; where the data choose, a word for that. UsageError."""
    if options.rule is None and data is not None:
        return "chosen by the data"
    return [rule.name for rule in as_rules(options.rule or DEFAULT_RULE)]


def profile_identity(options: QuantizeOptions) -> dict[str, Any]:
    """Return the identity of the GPU profile, and the batch size it is used for; None without one. UsageError."""
    given = options.gpu_profile
    digest = None if given is None else sha256_of(profile_text(load_profile(given)).encode())
    return {"GPU profile": digest, "batch size for the GPU": options.gpu_batch}


def statistics_digest(statistics: str | os.PathLike[str] | Statistics | None) -> str | None:
    """Return the sha256 of a statistics file, or of the file that statistics would be. OSError."""
    if isinstance(statistics, Statistics):
        return sha256_of(statistics_bytes(statistics))
    return None if statistics is None else regular_file_digest(Path(statistics))


def samples_identity(source: Model, data: NetworkSamples | None) -> tuple[dict[str, Any] | None, tuple[Any, ...]]:
    """Return the identity of the samples by content, and the stamps of their files.

    The identity holds None without data, and is None for a stream.
    """
    if data is None:
        return dict.fromkeys(("samples", "data", "order of the data", "preprocessing")), ()
    spec, place = data.preprocess, data.source
    if not isinstance(place, (str, os.PathLike)) or not isinstance(spec, Preprocess):
        return None, ()
    if not (exists(place) or is_remote(place)):  # `module:callable`
        return None, ()
    feed, applied = open_data(place, source.inputs, spec, data.options)
    identity = feed.identity()
    if identity is None:
        return None, ()
    found = {
        "samples": identity.samples,
        "data": identity.content,
        "order of the data": identity.order,
        "preprocessing": None if applied is None else applied.model_dump(mode="json"),
    }
    return found, tuple(stamp.record for stamp in feed.stamps())


def refuse_changed_samples(source: Model, data: NetworkSamples | None, inputs: QuantizationInputs | None) -> None:
    """Raise DataError if a file of the samples is no longer the one that the record will name."""
    if data is not None and inputs is not None and inputs.stamps:
        assert isinstance(data.preprocess, Preprocess)
        feed, _ = open_data(data.source, source.inputs, data.preprocess, data.options)
        if tuple(stamp.record for stamp in feed.stamps()) != inputs.stamps:
            raise changed_data(str(data.source))


def record_quantization(made: Quantization, source: Model, inputs: QuantizationInputs) -> None:
    """Add the record to the metadata of a model that is about to be written. ModelError."""
    stored = StoredQuantization(
        inputs=dict(inputs.parts),
        written=model_identity(made.proto, source.folder, str(source.path)),
        pairs=dict(made.pairs),
        weights=made.weights,
        left=dict(made.left),
        source=made.source,
        rules=dict(made.rules),
        coverage=made.coverage,
        folded=made.folded,
        repairs=dict(made.repairs),
        notes=made.notes,
        int8_layers=made.int8_layers,
        fp8_layers=made.fp8_layers,
        form=made.form,
        type=made.type,
        types=dict(made.types),
        also_fp8=dict(made.also_fp8),
        trial=made.trial,
        held_out=made.held_out,
    )
    entry = made.proto.metadata_props.add()
    entry.key, entry.value = RUN_KEY, json.dumps(asdict(stored), default=enum_value)  # names that are not UTF-8 too


def enum_value(value: Any) -> Any:
    """Return the value of a member of an enumeration, for JSON. TypeError for anything else."""
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value))


def reuse_quantized(target: Path, inputs: QuantizationInputs | None) -> Quantization | None:
    """Return the result of the call that wrote `target`, if it had the same inputs; None if nothing lies there.

    StaleError, which names what is different, for a model of other inputs, one that was changed, and any other file.
    """
    if not exists(target):
        return None
    try:
        found = load_model(target)
        stored = read_run(found.proto, str(target))
    except ModelError:
        stored = None
    if inputs is None or stored is None:
        refuse_existing(target, force=False)
    assert inputs is not None
    assert stored is not None
    refuse_changed(target, marked_digests(stored.inputs), marked_digests(json.loads(json.dumps(dict(inputs.parts)))))
    if found.sha256 != stored.written:
        raise StaleError(f"{target} was changed after quantkit wrote it", remedy=REMEDY)
    kept = {name: getattr(stored, name) for name in stored.__dataclass_fields__ if name not in ("inputs", "written")}
    made = Quantization(
        proto=found.proto,
        opset=default_opset(found.proto),
        files=saved_files(found.proto, target),
        reused=True,
        **kept,
    )
    return replace(made, notes=(*stored.notes, f"nothing changed: {target.name} is reused"))


def read_run(proto: onnx.ModelProto, where: str) -> StoredQuantization | None:
    """Return the record in the metadata of a model; None if there is none. ModelError if it is damaged."""
    texts = [entry.value for entry in proto.metadata_props if entry.key == RUN_KEY]
    return RUNS.parse(texts[-1], f"the metadata {RUN_KEY!r} of {where}") if texts else None


def marked_digests(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts with digests marked as such, so that a message names them without their digits."""
    return {name: Digest(value) if name in DIGESTS and value is not None else value for name, value in parts.items()}
