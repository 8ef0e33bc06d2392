"""The files that tuning writes: the Q/DQ model, the table, the exclusion file, and the report.

x.int8.onnx    Q/DQ model for any TensorRT and for onnxruntime; x.fp8.onnx, x.mixed.onnx where it is of these types
x.calib        calibration table of the original float network by the chosen rule, with all its tensors; for TensorRT
               before 11, where `quantkit build --exclude @x.exclude` keeps layers float; none where layers are FP8
x.fp8          the nodes that are FP8, for `--fp8 @FILE` of quantize; where others are INT8
x.exclude      the nodes that stay float, for `--exclude @FILE` of quantize and build
x.fp16.onnx    the cleaned float network, where the search by time chose FP16
tune.json      every trial, the chosen one, and the reasons; `deploy` names the files to build the engine from, and
               `digests` holds the sha256 of every other file
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit._version import __version__
from quantkit.artifact import check_destinations, check_writable, sha256_of, text_bytes
from quantkit.calibration.from_statistics import statistics_provenance
from quantkit.calibration.tables import header_for, make_tables
from quantkit.errors import OutputError
from quantkit.evaluation.json_document import evaluation_json as evaluation_document
from quantkit.graph import Model, refuse_changed_weights, saved_files
from quantkit.graph.save import stage_model
from quantkit.metrics.registry import metric_title
from quantkit.numerics import format_db
from quantkit.paths import exists, is_folder
from quantkit.provenance import provenance_bytes, provenance_path
from quantkit.rules import parse_rule
from quantkit.sensitivity.exclusion_file import check_node_name, exclusion_reason
from quantkit.staging import staged_files, write_failure
from quantkit.statistics import Statistics
from quantkit.table import table_bytes
from quantkit.tensorrt_version import target_version
from quantkit.tuning.json_document import tuning_document
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import Tuning
from quantkit.values import NetworkType
from quantkit.view import escape_controls

if TYPE_CHECKING:
    import onnx

RECORD = "tune.json"
FASTER_IN_FLOAT = "the engine is faster with it in float"


@dataclass(frozen=True, slots=True)
class TuningFiles:
    """The content of the files: the result, the float network, the chosen Q/DQ network, and the statistics.

    plain: the cleaned float network, if FP16 was chosen.
    """

    tuning: Tuning
    source: Model
    proto: onnx.ModelProto
    statistics: Statistics
    plain: onnx.ModelProto | None = None


def usable_folder(folder: Path, source: Model, *, force: bool) -> Path:
    """Return the folder if it can be used; it may still have to be created.

    OutputError if it is a file or its parent does not exist; StaleError if it holds files that may not be replaced.
    """
    if exists(folder) and not is_folder(folder):
        raise OutputError(f"{folder} is a file", remedy="give a folder with --output")
    if not exists(folder):
        check_writable(folder)
        return folder
    paths = tuning_paths(folder, source.path.stem)
    kinds = (*(kind.value for kind in NetworkType), "fp16")
    models = [path for kind in kinds for path in saved_files(source.proto, paths[kind])]
    written = dict.fromkeys((*models, *paths.values()))
    check_destinations(written, read=[source.path], force=force)
    return folder


def claim_in(folder: Path) -> Path:
    """Return the path that stands for all outputs: the record, or a folder that has yet to be created."""
    return folder / RECORD if exists(folder) else folder


def tuning_paths(folder: Path, stem: str) -> Mapping[str, Path]:
    """Return file kind → path for a network whose file has that stem."""
    names = {
        **{kind.value: f"{stem}.{kind.value}.onnx" for kind in NetworkType},
        "types": f"{stem}.fp8",
        "fp16": f"{stem}.fp16.onnx",
        "table": f"{stem}.calib",
        "exclude": f"{stem}.exclude",
        "record": RECORD,
    }
    found = {what: folder / name for what, name in names.items()}
    return {**found, "provenance": provenance_path(found["table"])}


def write_tuning(written: TuningFiles, folder: Path, options: TuneOptions) -> Tuning:
    """Write all files or none, and return the result with their paths. OutputError, StaleError."""
    paths = tuning_paths(folder, written.source.path.stem)
    kind = written.tuning.network_type
    plain = [] if written.plain is None else ["fp16"]
    table = ["table", "provenance"] if kind is NetworkType.INT8 else []
    types = ["types"] if kind is NetworkType.MIXED else []
    kinds = (kind.value, *plain, *table, "exclude", *types, "record")
    tuning = replace(written.tuning, files=tuple(paths[what] for what in kinds))
    tuning = with_tuned_model(tuning, written, paths)
    files = {
        **(tuned_table_files(written, paths["table"], options.tensorrt_version) if table else {}),
        paths["exclude"]: text_bytes(tuned_exclusion_text(tuning)),
        **({paths["types"]: text_bytes(types_text(tuning))} if types else {}),
    }
    is_new = not exists(folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from None
    try:
        with staged_files(may_replace=lambda _: options.force) as new:
            for path, content in files.items():
                new.write(path, content)
            stage_model(written.proto, written.source.folder, paths[kind.value], new)
            if written.plain is not None:
                stage_model(written.plain, written.source.folder, paths["fp16"], new)
            refuse_changed_weights(written.source)
            new.write(paths["record"], tune_json(tuning, new.digests()))
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise
    return tuning


def with_tuned_model(tuning: Tuning, written: TuningFiles, paths: Mapping[str, Path]) -> Tuning:
    """Return the result with the file that the chosen engine is built from in its report."""
    name = tuning.deployment["model"]
    if name is None:  # the float network, which has its file already
        return tuning
    proto = written.plain if written.plain is not None else written.proto
    path = paths["fp16" if written.plain is not None else tuning.network_type.value]
    return with_model_file(tuning, path, proto.SerializeToString(deterministic=True))


def with_model_file(tuning: Tuning, path: Path, content: bytes) -> Tuning:
    """Return the result with path, digest and size of the tuned model in its report."""
    *others, tuned = tuning.report.models
    tuned = replace(tuned, path=path, sha256=sha256_of(content), bytes=len(content))
    return replace(tuning, report=replace(tuning.report, models=(*others, tuned)))


def tuned_table_files(written: TuningFiles, path: Path, version: str | None) -> dict[Path, bytes]:
    """Return path → content of the table and its provenance record. UsageError if the version is invalid."""
    rule = parse_rule(written.tuning.chosen.recipe.rule)
    header = header_for(rule, target_version(version).number, None)
    table = make_tables(written.statistics, {rule: header})[rule.name]
    content = table_bytes(table)
    record = statistics_provenance(written.statistics, "quantkit tune", path, content, table, rule)
    return {path: content, provenance_path(path): provenance_bytes(record)}


def tuned_exclusion_text(tuning: Tuning) -> str:
    """Return the exclusion file: the nodes that stay float, and why. OutputError if a name does not fit into a line."""
    kept = tuning.chosen.recipe.kept
    known = {layer.node: layer for layer in tuning.ranking}
    more = f", and {len(tuning.excluded)} excluded nodes" if tuning.excluded else ""
    lines = [
        f"# nodes that stay float: {len(kept)} of {tuning.layers} layers{more}",
        f"# written by quantkit {__version__} tune for {tuning.model}: "
        f"loss of {metric_title(tuning.metric)} at most {tuning.budget}",
    ]
    lines += [f"{check_node_name(node)}  # excluded by --exclude" for node in tuning.excluded]
    lines += [
        f"{check_node_name(node)}  # {exclusion_reason(known[node]) if node in known else FASTER_IN_FLOAT}"
        for node in kept
    ]
    return "".join(f"{escape_controls(line)}\n" for line in lines)


def types_text(tuning: Tuning) -> str:
    """Return the file of types: the nodes that are FP8, and why. OutputError if a name does not fit into a line."""
    recipe, known = tuning.chosen.recipe, {layer.node: layer for layer in tuning.layer_types}
    lines = [
        f"# nodes that are FP8 while the others are INT8: {len(recipe.fp8)} of {len(known)} that have kernels of both",
        f"# written by quantkit {__version__} tune for {tuning.model}",
        *(
            f"{check_node_name(node)}  # alone {format_db(known[node].fp8_db)} in FP8, "
            f"{format_db(known[node].int8_db)} in INT8"
            for node in recipe.fp8
        ),
    ]
    return "".join(f"{escape_controls(line)}\n" for line in lines)


def tune_json(tuning: Tuning, digests: Mapping[str, str]) -> bytes:
    """Return the content of `tune.json`. digests: name of a file beside it → its sha256."""
    made = {**tuning_document(tuning, evaluation_document(tuning.report)), "digests": dict(digests)}
    return text_bytes(f"{json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)}\n")
