"""Checkpoints: the state of an unfinished calibration run, from which `--resume` arrives at the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantkit.artifact import canonical_json, write_whole
from quantkit.data import Feed
from quantkit.document import DocumentType
from quantkit.errors import StaleError, StatisticsError
from quantkit.frozen_record import FrozenRecord
from quantkit.paths import exists
from quantkit.regular_file import file_fault
from quantkit.staging import refuse_existing
from quantkit.statistics.sealed import read_sealed, sealed_bytes
from quantkit.values import Array

KEY = "quantkit.checkpoint"
REMEDY = "start again with --force instead of --resume"
Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class Position(FrozenRecord):
    """How far a run got: the pass, the position in the feed, batches and samples of that pass, and skipped samples."""

    pass_: Count = 0
    stop: Count = 0
    batches: Count = 0
    samples: Count = 0
    unreadable: tuple[str, ...] = ()
    seen: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Order digest of a stream up to here, so that another stream is not mistaken for the rest of this one."""


class CheckpointDocument(FrozenRecord):
    """The metadata of the file: everything that the run depends on, and how far it got."""

    identity: dict[str, Any]
    position: Position


DOCUMENT: DocumentType[CheckpointDocument] = DocumentType(
    CheckpointDocument, "that of a checkpoint", StatisticsError, REMEDY
)


def write_checkpoint(path: Path, identity: Mapping[str, Any], position: Position, arrays: Mapping[str, Array]) -> None:
    """Write the state after a batch. OutputError."""
    document = CheckpointDocument(identity=dict(identity), position=position)
    write_whole(path, sealed_bytes(arrays, KEY, canonical_json(document.model_dump(mode="json"))))


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], feed: Feed, passes: int
) -> tuple[Position, dict[str, Array]]:
    """Read the state back. StaleError where it belongs to another run, StatisticsError where it is damaged."""
    try:
        file = read_sealed(path, KEY)
        if not file.sealed:
            raise ValueError("it has no digest, as those of quantkit 0.1")
        document = DOCUMENT.parse(file.text, f"{path} is damaged: its metadata")
    except FileNotFoundError:
        raise StaleError(f"nothing to resume: {path} does not exist", remedy="leave out --resume") from None
    except (OSError, KeyError, ValueError) as error:
        raise StatisticsError(f"{path} is damaged: {file_fault(error)}", remedy=REMEDY) from None
    theirs = document.identity
    changed = [key for key in identity if canonical_json(identity[key]) != canonical_json(theirs.get(key))]
    if changed:
        raise StaleError(
            f"the interrupted run of {path} differs in {', '.join(changed)}",
            remedy="use the options of that run, or --force instead of --resume to start again",
        )
    if fault := position_fault(document.position, feed, passes):
        raise StatisticsError(f"{path} is damaged: {fault}", remedy=REMEDY)
    return document.position, file.arrays


def position_fault(position: Position, feed: Feed, passes: int) -> str:
    """Return why a run over `feed` cannot have got to a position, as a sentence; empty if it can have."""
    batches, samples, stop = position.batches, position.samples, position.stop
    left_out = len(position.unreadable)
    if position.pass_ >= passes:
        return f"it stopped in pass {position.pass_ + 1} of {passes}"
    if not 1 <= batches <= min(samples, stop) or (feed.positions is not None and stop > feed.positions):
        return f"it counts {batches} batches of {samples} samples up to position {stop} of {feed.positions}"
    if feed.samples is not None and samples + left_out != stop:
        return f"it counts {samples} samples, {left_out} left out, up to position {stop}"
    if feed.batch_size is not None and not (batches - 1) * feed.batch_size < samples <= batches * feed.batch_size:
        return f"it counts {batches} batches of {samples} samples, {feed.batch_size} in each"
    return ""


def refuse_interrupted_run(path: Path) -> None:
    """Raise StaleError where the checkpoint of an interrupted run exists, or a foreign file in its place."""
    if not exists(path):
        return
    try:
        read_sealed(path, KEY)
    except (OSError, KeyError, ValueError):
        refuse_existing(path, force=False)
    raise StaleError(
        f"{path} is the checkpoint of an interrupted run",
        remedy="continue that run with --resume, or start again with --force",
    )
