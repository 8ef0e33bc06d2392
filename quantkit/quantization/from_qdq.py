"""table from-qdq: convert a Q/DQ model back to a calibration table and a plain float model, for implicit INT8 and DLA.

TensorRT 8.6 … 10.x ignores calibration tables if a single Q/DQ node is in the network, so all have to be removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit._version import __version__
from quantkit.artifact import check_destinations, sha256_of, write_all
from quantkit.backends.trial_run import Trial, scale_ranges, try_network
from quantkit.errors import ModelError, OutputError, UsageError
from quantkit.graph import AnyModel, Model, load_model, watched_tensors
from quantkit.graph.identity import external_files, model_identity
from quantkit.graph.load import model_place
from quantkit.paths import beside, given_path, real_path
from quantkit.provenance import (
    ModelRecord,
    Provenance,
    TableRecord,
    check_tables_writable,
    provenance_bytes,
    provenance_path,
)
from quantkit.qdq.removal import StrippedNetwork, remove_qdq
from quantkit.qdq.scale_propagation import propagate_scales
from quantkit.qdq.weight_scales import weight_deviations
from quantkit.quantization.record import METADATA_KEY, QuantizationRecord, quantization_record
from quantkit.table import Algorithm, CalibrationTable, Coverage, Header, coverage, table_bytes
from quantkit.table.comparison import MIN_COVERAGE
from quantkit.tensorrt_version import target_version
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

if TYPE_CHECKING:
    import onnx

NOTABLE = 0.01
"""A smaller relative difference between a weight's scale and TensorRT's is not reported."""


@dataclass(frozen=True, slots=True)
class FromQdq(RichDisplay):
    """A table and a plain model that were converted from a Q/DQ model.

    table, model, provenance: the files; no table where no scale of the file fits one.
    scales: the table, including inferred scales. inferred: tensors whose scale
    follows from their neighbours. coverage: of the plain network's float tensors. unscaled: activations whose pair no
    table can hold, with the reason. weights: float weight → largest |scale/(max|w|/127) − 1|, None if TensorRT does not
    quantize it, or it is unknown. biases: number of biases that were stored as integers and are float now.
    """

    table: Path | None
    model: Path
    provenance: Path | None
    scales: CalibrationTable
    inferred: Mapping[str, float]
    coverage: Coverage
    unscaled: Mapping[str, str]
    weights: Mapping[str, float | None]
    biases: int
    changed: str = ""
    """Changes by quantization besides Q/DQ, which remain."""
    clipped: tuple[str, ...] = ()
    """Tensors of ReLUs that the range of a pair had replaced, and that are nodes of the plain model again."""
    trial: Trial = field(default_factory=Trial)
    """The outcome of running the plain model once, beside the Q/DQ model, before it was written."""

    @property
    def deviating(self) -> tuple[str, ...]:
        """Weights whose scales differ from those that TensorRT chooses, the worst first."""
        found = {name: far for name, far in self.weights.items() if far is not None and far > NOTABLE}
        return tuple(sorted(found, key=lambda name: (-found[name], name)))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks to read before an engine is built from it."""
        return tuple(table_notes(self))

    def _view_(self) -> Sequence[Block]:
        found = self.coverage
        name = self.table.name if self.table else "no table"
        files = [path.name for path in (self.model, self.table, self.provenance) if path]
        return (
            f"{name}: {len(self.scales)} scales, {len(self.inferred)} of them inferred from neighbours; "
            f"{len(found.matched)} of {len(found.matched) + len(found.missing)} float tensors covered",
            ViewTable(("no scale in the table", "why"), list(self.unscaled.items()), frozenset({0, 1})),
            Remarks([*self.notes, f"wrote {', '.join(files)}"]),
        )


def from_qdq(
    path: AnyModel,
    output: str | os.PathLike[str],
    *,
    plain: str | os.PathLike[str] | None = None,
    tensorrt_version: str | None = None,
    algorithm: Algorithm = Algorithm.ENTROPY_2,
    infer: bool = True,
    force: bool = False,
) -> FromQdq:
    """Write the scales of a Q/DQ model as a table, and the model without Q/DQ to `plain` (`x.calib` → `x.float.onnx`).

    infer: also give scales to tensors whose scales follow from their neighbours. External weights stay where they are,
    so the plain model has to be beside the Q/DQ model then. All files are written, or none. Where no scale of the file
    fits a table (activations with zero points), only the plain model is written, to be calibrated again.

    ModelError if there is no Q/DQ, or some of it cannot be removed; StaleError, OutputError, UsageError.
    """
    output = given_path(output, "output")
    target = beside(output, f"{output.stem}.float.onnx") if plain is None else Path(plain)
    header = table_header(algorithm, tensorrt_version)
    refuse_same_files(model_place(path), output, target)
    may_replace = check_tables_writable([output], read=[path], force=force)
    check_destinations([target], read=[path], force=force, option="--model")
    model = load_model(path)
    stripped = remove_qdq(model)
    refuse_leftovers(model, stripped)
    refuse_lost_weights(model, stripped.proto, target)
    changed = kept_changes_text(model.metadata, model.path.name)
    forget_quantization(stripped.proto)
    network = Model(model.path, stripped.proto, model_identity(stripped.proto, model.folder, str(model.path)))
    tensors = watched_tensors(network).tensors
    open_ = [name for name in tensors if name not in stripped.unscaled]
    inferred = propagate_scales(stripped.proto.graph, stripped.scales, open_) if infer else {}
    scales = {**stripped.scales, **inferred}
    table = CalibrationTable(header, {n: scales[n] for n in dict.fromkeys((*tensors, *scales)) if n in scales})
    weights, biases = summarize_lost_weights(network, stripped)
    trial = try_network(target, network, model, ranges=scale_ranges(scales))
    files = {target: stripped.proto.SerializeToString(deterministic=True)}
    if scales:
        record = qdq_provenance(output, table, model_record(network, target), model_record(model))
        files |= {output: table_bytes(table), provenance_path(output): record}
    write_all(files, may_replace=may_replace)
    return FromQdq(
        output if scales else None,
        target,
        provenance_path(output) if scales else None,
        table,
        inferred,
        coverage(table, tensors),
        stripped.unscaled,
        weights,
        biases,
        changed,
        stripped.clipped,
        trial,
    )


def table_header(algorithm: Algorithm, tensorrt_version: str | None) -> Header:
    """Return the header of the table. UsageError."""
    if algorithm is Algorithm.LEGACY:
        raise UsageError(
            "a Legacy table records the percentile of its calibration, and a Q/DQ model has none",
            remedy="give another --algorithm",
        )
    return Header(algorithm, target_version(tensorrt_version).number)


def kept_changes_text(metadata: Mapping[str, str], name: str) -> str:
    """Return the changes by `quantize` that remain in the plain model, as a sentence; empty if there are none.

    metadata, name: of the Q/DQ model.
    """
    try:
        record = quantization_record(metadata, name) or QuantizationRecord()
    except ModelError as error:
        return f"{error.problem}: which repairs the plain model keeps is unknown"
    parts = [f"its repairs ({', '.join(record.repairs)})"] if record.repairs else []
    parts += ["FP16"] if record.fp16 else []
    parts += [f"weights rounded to {record.weights.upper()}"] if record.weights in ("int8", "fp8") else []
    if not parts:
        return ""
    return f"the plain model is not the one before quantization, because it keeps {', '.join(parts)}"


def model_record(model: Model, path: Path | None = None) -> ModelRecord:
    """Return the record that identifies a model, by the name of its file or of `path`."""
    return ModelRecord(file=(path or model.path).name, sha256=model.sha256)


def forget_quantization(proto: onnx.ModelProto) -> None:
    """Remove the metadata of a model about its quantization."""
    kept = [entry for entry in proto.metadata_props if entry.key != METADATA_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)


def summarize_lost_weights(network: Model, stripped: StrippedNetwork) -> tuple[dict[str, float | None], int]:
    """Return weight → deviation of its scales from TensorRT's, and the number of biases that were integers."""
    deviations = weight_deviations(network, stripped.weights)
    biases = {name for name, lost in stripped.weights.items() if all(item.grid.type == "int32" for item in lost)}
    return {name: deviations.get(name) for name in stripped.weights if name not in biases}, len(biases)


def qdq_provenance(output: Path, table: CalibrationTable, model: ModelRecord, source: ModelRecord) -> bytes:
    """Return the provenance record of a table. model: the plain network; source: the one with Q/DQ."""
    digest = sha256_of(table_bytes(table))
    record = TableRecord(file=output.name, sha256=digest, header=table.header.text, tensors=len(table))
    return provenance_bytes(Provenance(quantkit=__version__, table=record, model=model, origin="qdq", source=source))


def refuse_same_files(model: Path, table: Path, plain: Path) -> None:
    """Raise UsageError if two of the files are the same."""
    places = [real_path(file) for file in (model, table, provenance_path(table), plain)]
    if len(set(places)) < len(places):
        raise UsageError(
            f"{model}, {table} and {plain} have to be different files",
            remedy="give the table and the plain model other names, with --output and --model",
        )


def refuse_leftovers(model: Model, stripped: StrippedNetwork) -> None:
    """Raise ModelError if a Q/DQ node is left, or there was none."""
    if stripped.left:
        name, reason = next(iter(stripped.left.items()))
        others = f", and {len(stripped.left) - 1} more" if len(stripped.left) > 1 else ""
        raise ModelError(
            f"{model.path}: Q/DQ node {name!r} cannot be removed: {reason}{others}",
            remedy="build the model as it is (quantkit build), because TensorRT ignores tables if Q/DQ nodes are left",
        )
    if not (stripped.scales or stripped.unscaled or stripped.weights):
        raise ModelError(
            f"{model.path} has no QuantizeLinear and no DequantizeLinear",
            remedy="give a Q/DQ model; quantkit calibrate writes tables of float models",
        )


def refuse_lost_weights(model: Model, proto: onnx.ModelProto, plain: Path) -> None:
    """Raise OutputError if the plain model would not find external weights, UsageError if it would overwrite them."""
    outside = external_files(proto)
    if real_path(plain) in {real_path(model.folder / file) for file in external_files(model.proto)}:
        raise UsageError(f"{plain} holds weights of {model.path}", remedy="give another --model")
    if outside and real_path(plain.absolute().parent) != real_path(model.folder):
        raise OutputError(
            f"{plain} would not find its weights, which are in {outside[0]} beside {model.path}",
            remedy=f"write it there: --model {beside(model.path, plain.name)}",
        )


def table_notes(made: FromQdq) -> Iterator[str]:
    """Yield remarks about a table that was converted from a Q/DQ model."""
    yield from made.trial.notes
    if made.changed:
        yield made.changed
    if made.clipped:
        names = ", ".join(made.clipped[:3]) + (" …" if len(made.clipped) > 3 else "")
        yield (
            f"{len(made.clipped)} ReLUs that had been replaced by zero points at the end of a range are nodes of the "
            f"plain model again: {names}; an upper bound (ReLU6) cannot be recovered from the file"
        )
    if made.deviating:
        names = ", ".join(made.deviating[:3]) + (" …" if len(made.deviating) > 3 else "")
        yield (
            f"{len(made.deviating)} weights had scales that differ by more than {NOTABLE:.0%} from max|w|/127 per "
            f"output channel, which TensorRT uses without Q/DQ: {names}; expect a different accuracy"
        )
    if not made.table:
        reasons = [f"{name!r}: {reason}" for name, reason in made.unscaled.items()]
        why = f"{reasons[0]} ({len(reasons)} in all)" if reasons else "only weights have Q/DQ"
        yield (
            f"no table is written, because no activation has a scale that fits one; {why}; calibrate the float model: "
            f"quantkit calibrate {made.model} --data DATA"
        )
        return
    if made.unscaled:
        name, reason = next(iter(made.unscaled.items()))
        others = f" (and {len(made.unscaled) - 1} more)" if len(made.unscaled) > 1 else ""
        yield f"{name!r} gets no scale, because {reason}{others}; its readers run in float"
    share = made.coverage.share
    if share < MIN_COVERAGE:
        yield (
            f"{len(made.coverage.missing)} float tensors have no scale, because the Q/DQ model does not quantize them; "
            f"quantkit build needs --min-coverage {int(share * 100) / 100:g} or less for this table"
        )
