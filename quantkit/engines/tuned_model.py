"""The choice of `quantkit tune`, read from its folder: which file to build, with which table and precision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from quantkit.document import DocumentType
from quantkit.errors import ModelError, StaleError, UsageError
from quantkit.graph import Model, load_model
from quantkit.graph.save import data_path
from quantkit.paths import exists, is_folder
from quantkit.regular_file import file_fault, regular_file_digest

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.options import BuildOptions

RECORD_NAME = "tune.json"


def refuse_path(name: str) -> str:
    """Return the name of a file beside the record. ValueError for a path that leads elsewhere."""
    if name != Path(name).name or "\\" in name or not name.strip("."):
        raise ValueError(f"{name!r} is not the name of a file beside it")
    return name


FileName = Annotated[str, AfterValidator(refuse_path)]
"""The name of a file in the folder of a tuning."""


class DeployedFiles(BaseModel):
    """The files to build the chosen engine from, as names in the folder. model: None for the network that was tuned;
    exclude: nodes that stay float in a table's engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    precision: str
    model: FileName | None
    table: FileName | None
    exclude: list[str] = []


class TimedMachine(BaseModel):
    """The GPU and the library by whose times the engine was chosen."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    machine: str


class TunedRecord(BaseModel):
    """The part of `tune.json` that a build needs; the rest is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    deploy: DeployedFiles
    provenance: dict[str, Any]
    digests: dict[str, str] = {}
    """File name → its sha256 when it was written."""
    speed: TimedMachine | None = None


TUNED = DocumentType[TunedRecord](TunedRecord, "a record of quantkit tune", ModelError, "tune again with --force")


@dataclass(frozen=True, slots=True)
class TunedModel:
    """The input of a build: a model, the precision, and for a float network that is to be INT8 a table and the
    nodes that stay float."""

    model: Path
    precision: str
    table: Path | None
    exclude: tuple[str, ...] = ()


def read_tuned(
    folder: str | os.PathLike[str], source: Model, table: str | os.PathLike[str] | None = None
) -> TunedModel:
    """Return the choice in a folder of `quantkit tune`, or in its `tune.json`.

    source: the network that was tuned. table: a table that the caller gives, which is a contradiction. UsageError if
    there is one, or no record, StaleError if it is of another network or a file was changed since, ModelError if it is
    damaged or a file is missing.
    """
    if table is not None:
        raise UsageError("the choice of a tuning names its table itself", remedy="leave out --table")
    path = tuned_record_path(folder)
    if not exists(path):
        raise UsageError(f"{path} does not exist", remedy="give --tuned the folder that `quantkit tune` wrote")
    record = TUNED.read(path)
    if record.provenance.get("model") != source.sha256:
        raise StaleError(
            f"{path} was made for another network than {source.path}", remedy="give the network that was tuned"
        )
    chosen = record.deploy
    model = source.path if chosen.model is None else path.parent / chosen.model
    table = None if chosen.table is None else path.parent / chosen.table
    own = None if chosen.model is None else model  # the network that was tuned is known by its own digest
    for file in (own, table):
        if file is not None:
            refuse_changed(path, file, record.digests)
    if own is not None and data_path(own).name in record.digests:
        refuse_changed(path, data_path(own), record.digests)
    return TunedModel(model, chosen.precision, table, tuple(chosen.exclude))


def refuse_changed(record: Path, file: Path, digests: Mapping[str, str]) -> None:
    """Raise ModelError if a file of a tuning is missing, StaleError if it is not the one that was written with it."""
    again = "tune again with --force"
    if not exists(file):
        raise ModelError(f"{record} names {file.name}, which is missing", remedy=again)
    if file.name not in digests:
        raise ModelError(f"{record} has no digest of {file.name}, so it may be another file by now", remedy=again)
    try:
        found = regular_file_digest(file)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {file_fault(error)}", remedy=again) from None
    if found != digests[file.name]:
        raise StaleError(
            f"{file} was changed after the tuning that {record} describes",
            remedy="put the file back, or tune again with --force; to build it as it is, name it without --tuned",
        )


def tuned_record_path(folder: str | os.PathLike[str]) -> Path:
    """Return the path of the record of a tuning. folder: of the tuning, or the record itself."""
    given = Path(folder)
    return given / RECORD_NAME if is_folder(given) else given


def other_machine_warning(folder: str | os.PathLike[str] | None, gpu: str, version: str) -> tuple[str, ...]:
    """Return a warning if an engine was chosen by its times on another GPU or TensorRT than these. ModelError."""
    machine = f"{gpu}, TensorRT {version}"
    timed = None if folder is None else TUNED.read(tuned_record_path(folder)).speed
    if timed is None or timed.machine == machine:
        return ()
    return (f"the engine was chosen by times on {timed.machine}, which may differ on {machine}: tune it here",)


def tuned_inputs(
    folder: str | os.PathLike[str] | None,
    source: Model,
    options: BuildOptions,
    table: str | os.PathLike[str] | None,
) -> tuple[Model, BuildOptions, str | os.PathLike[str] | None]:
    """Return the model, the options and the table of a build, replaced by the choice of a tuning if one is given."""
    from quantkit.backends.tensorrt.options import Precision

    if folder is None:
        return source, options, table
    chosen = read_tuned(folder, source, table)
    kept = (*options.exclude, *chosen.exclude)
    options = replace(options, precision=Precision.named(chosen.precision), exclude=kept)
    return load_model(chosen.model), options, chosen.table
