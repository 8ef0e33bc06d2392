"""Checkpoints: the state of an unfinished calibration run, from which `--resume` arrives at the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.artifact import canonical_json, write_whole
from quantkit.errors import StaleError, StatisticsError
from quantkit.regular_file import file_fault, refuse_irregular
from quantkit.values import Array

KEY = "quantkit.checkpoint"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run got: the pass, the position in the feed, batches and samples of that pass, and skipped samples."""

    pass_: int = 0
    stop: int = 0
    batches: int = 0
    samples: int = 0
    unreadable: tuple[str, ...] = ()
    seen: str = ""
    """Order digest of a stream up to here, so that another stream is not mistaken for the rest of this one."""


def write_checkpoint(path: Path, identity: Mapping[str, Any], position: Position, arrays: Mapping[str, Array]) -> None:
    """Write the state after a batch. OutputError."""
    from safetensors.numpy import save

    document = {
        "identity": identity,
        "pass": position.pass_,
        "stop": position.stop,
        "batches": position.batches,
        "samples": position.samples,
        "unreadable": position.unreadable,
        "seen": position.seen,
    }
    write_whole(path, save(dict(arrays), metadata={KEY: canonical_json(document)}))


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> tuple[Position, dict[str, Array]]:
    """Read the state back. StaleError where it belongs to another run, StatisticsError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_irregular(path)
        with safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {})[KEY])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise StaleError(f"nothing to resume: {path} does not exist", remedy="leave out --resume") from None
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise StatisticsError(f"{path} is damaged: {file_fault(error)}", remedy="remove it and start again") from None
    try:
        position, theirs = parse_position(document), dict(document["identity"])
    except (KeyError, TypeError, ValueError) as error:
        raise StatisticsError(f"{path} is damaged: {error}", remedy="remove it and start again") from None
    changed = [key for key in identity if canonical_json(identity[key]) != canonical_json(theirs.get(key))]
    if changed:
        raise StaleError(
            f"the interrupted run of {path} differs in {', '.join(changed)}",
            remedy="use the options of that run, or leave out --resume to start again",
        )
    return position, arrays


def parse_position(document: Mapping[str, Any]) -> Position:
    """Return the position that a checkpoint records."""
    return Position(
        document["pass"],
        document["stop"],
        document["batches"],
        document["samples"],
        tuple(document["unreadable"]),
        document["seen"],
    )
