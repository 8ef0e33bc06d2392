"""What tuning leaves on disk: the Q/DQ model, the table, the exclusion file, and the reasons.

x.int8.onnx    Q/DQ, for every TensorRT and onnxruntime
x.calib        the table by the chosen rule, of the float network as it was: all tensors, for TensorRT before 11,
               which keeps layers float by `quantkit build --exclude @x.exclude`
x.exclude      the nodes that stay float, for `--exclude @FILE` of quantize and build
tune.json      every trial, what was chosen, and why
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantkit._version import __version__
from quantkit.artifact import refuse_existing, restore_files, sha256_of, write_all, write_failure
from quantkit.calibration.from_statistics import statistics_provenance
from quantkit.calibration.tables import header_for, make_tables
from quantkit.errors import OutputError
from quantkit.evaluation.json_document import evaluation_json as evaluation_document
from quantkit.graph import Model, saved_files
from quantkit.graph.save import write_model
from quantkit.provenance import provenance_bytes, provenance_path
from quantkit.rules import parse_rule
from quantkit.sensitivity.exclusion_file import check_node_name, exclusion_reason
from quantkit.statistics import Statistics
from quantkit.table import table_bytes
from quantkit.tensorrt_version import target_version
from quantkit.tuning.result import Tuning, tuning_document

if TYPE_CHECKING:
    import onnx

RECORD = "tune.json"


class Wishes(Protocol):
    """What is asked of the files."""

    @property
    def tensorrt_version(self) -> str | None:
        """TensorRT that the table is for."""

    @property
    def force(self) -> bool:
        """Whether files that are there are replaced."""


@dataclass(frozen=True, slots=True)
class TuningFiles:
    """What is to be written: the result, the float network, the chosen Q/DQ network, the statistics."""

    tuning: Tuning
    source: Model
    proto: onnx.ModelProto
    statistics: Statistics


def usable_folder(folder: Path, source: Model, *, force: bool) -> Path:
    """The folder, which may have to be made. OutputError where it is a file, or where there is no place for it;
    StaleError where files are there that may not be replaced."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", remedy="give a folder with --output")
    if not folder.is_dir() and not folder.absolute().parent.is_dir():
        raise OutputError(f"cannot make {folder}: there is no folder {folder.parent}", remedy="make that folder first")
    refuse_occupied(tuning_paths(folder, source.path.stem).values(), force=force)
    return folder


def tuning_paths(folder: Path, stem: str) -> Mapping[str, Path]:
    """What → where, for a network whose file has that stem."""
    names = {"model": f"{stem}.int8.onnx", "table": f"{stem}.calib", "exclude": f"{stem}.exclude", "record": RECORD}
    found = {what: folder / name for what, name in names.items()}
    return {**found, "provenance": provenance_path(found["table"])}


def refuse_occupied(paths: Iterable[Path], *, force: bool) -> None:
    """StaleError where one of the files is there and may not be replaced."""
    for path in paths:
        refuse_existing(path, force=force)


def write_tuning(written: TuningFiles, folder: Path, wishes: Wishes) -> Tuning:
    """Write all files, or none; the result then knows them. OutputError, StaleError."""
    paths = tuning_paths(folder, written.source.path.stem)
    content = written.proto.SerializeToString(deterministic=True)
    tuning = with_model_file(written.tuning, paths["model"], content)
    tuning = replace(tuning, files=tuple(paths[what] for what in ("model", "table", "provenance", "exclude", "record")))
    files = {
        **tuned_table_files(written, paths["table"], wishes.tensorrt_version),
        paths["exclude"]: tuned_exclusion_text(tuning).encode(),
        paths["record"]: tune_json(tuning),
    }
    models = saved_files(written.proto, paths["model"])
    refuse_occupied((*models, *files), force=wishes.force)
    made_now = not folder.is_dir()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from None
    before = {path: path.read_bytes() if path.exists() else None for path in models}
    try:
        write_model(written.proto, written.source.folder, paths["model"])
        write_all(files)
    except BaseException:
        restore_files(before)
        if made_now and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return tuning


def with_model_file(tuning: Tuning, path: Path, content: bytes) -> Tuning:
    """The report with the tuned model as the file that it becomes."""
    *others, tuned = tuning.report.models
    tuned = replace(tuned, path=path, sha256=sha256_of(content), bytes=len(content))
    return replace(tuning, report=replace(tuning.report, models=(*others, tuned)))


def tuned_table_files(written: TuningFiles, path: Path, version: str | None) -> dict[Path, bytes]:
    """The table and its provenance. UsageError where the version is none."""
    rule = parse_rule(written.tuning.chosen.recipe.rule)
    header = header_for(rule, target_version(version).number, None)
    table = make_tables(written.statistics, {rule: header})[rule.name]
    content = table_bytes(table)
    record = statistics_provenance(written.statistics, "quantkit tune", path, content, table, rule)
    return {path: content, provenance_path(path): provenance_bytes(record)}


def tuned_exclusion_text(tuning: Tuning) -> str:
    """The nodes that stay float, and why. OutputError where a name does not fit into a line."""
    kept = tuning.chosen.recipe.kept
    known = {layer.node: layer for layer in tuning.ranking}
    more = f", and {len(tuning.excluded)} nodes that were excluded" if tuning.excluded else ""
    lines = [
        f"# nodes that stay float: {len(kept)} of {tuning.layers} layers{more}",
        f"# made by quantkit {__version__} tune, of {tuning.model}: {tuning.metric}, at most {tuning.max_drop:g} lost",
    ]
    lines += [f"{check_node_name(node)}  # excluded by --exclude" for node in tuning.excluded]
    lines += [f"{check_node_name(node)}  # {exclusion_reason(known[node])}" for node in kept]
    return "".join(f"{line}\n" for line in lines)


def tune_json(tuning: Tuning) -> bytes:
    """`tune.json`."""
    made = tuning_document(tuning, evaluation_document(tuning.report))
    return f"{json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()
