"""Shards of an evaluation as files: made once, and reused if nothing changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import ShardError, StaleError, UsageError
from quantkit.evaluation.options import EvaluateFields, EvaluateOptions
from quantkit.evaluation.request import open_request
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.evaluation.shards.tree_file import StoredTotals, parse_totals
from quantkit.graph import AnyModel
from quantkit.keywords.option_fields import takes_fields
from quantkit.progress import NoProgress, Progress
from quantkit.sharding import Shard, ShardRecord
from quantkit.sharding.data_parts import REMEDY, refuse_other_shard, replaced_by_force
from quantkit.sharding.folder import Place, ShardFolder, given_place, read_shard_file
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

SUFFIX = ".evaluation.safetensors"


@dataclass(frozen=True, slots=True)
class EvaluatedShard:
    """One shard of an evaluation, whose totals are in `file`. reused: it was there already, and nothing changed."""

    record: ShardRecord
    file: str
    samples: int
    models: tuple[str, ...]
    reused: bool
    seconds: float


@takes_fields(EvaluateOptions, DataOptions)
def evaluate_shard(
    models: AnyModel | Sequence[AnyModel],
    data: Any,
    shard: str | Shard,
    output: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | Iterable[Any] | None = None,
    preprocess: AnyPreprocess = None,
    metrics: str | Sequence[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
    **_: Unpack[EvaluateFields],
) -> EvaluatedShard:
    """Evaluate models on one part of the samples, and write the totals; `evaluate(…, merge=output)` adds them up.

    shard: `"3/64"` for the part 3 of the 64 parts 0, 1 … 63. output: the folder or the URL of all of them. A shard
    that is there is reused, unless `force=True` is given. The other arguments are those of `evaluate`, and so are the
    errors; StaleError where a shard of another run is there, OutputError where it cannot be written.
    """
    options = checked_options(options, EvaluateOptions)
    if options.merge is not None:
        raise UsageError("--merge adds up all shards, and --shard makes one", remedy="give only one of them")
    started, chosen, place = time.monotonic(), Shard.named(shard), given_place(output, "output")
    assert place is not None
    with ExitStack() as held:
        subjects, request = open_request(models, data, labels, preprocess, metrics, options, held)
        evaluator, folder = ShardEvaluator(subjects, request, held), ShardFolder(place, SUFFIX)
        with folder.claimed(chosen):
            file = folder.file_of(chosen)
            reused = not options.force and folder.has(chosen)
            if reused:
                with replaced_by_force():
                    stored = parse_totals(read_totals(file), file)
                refuse_other_totals(file, stored, evaluator, chosen)
            else:
                content = evaluator.collect(chosen, progress or NoProgress())
                stored = parse_totals(content, file)
                folder.write(chosen, content, force=options.force)
    names = tuple(subject.name for subject in subjects)
    samples = int(stored.tree["data"]["samples"])
    return EvaluatedShard(stored.shard, file, samples, names, reused, time.monotonic() - started)


def refuse_other_totals(file: str, stored: StoredTotals, evaluator: ShardEvaluator, shard: Shard) -> None:
    """Raise StaleError unless an existing shard is the one that this evaluation would make."""
    skip = evaluator.request.options.data.skip_corrupt
    content = str(stored.tree["data"]["content"])
    refuse_other_shard(file, stored.shard, content, evaluator.run, shard, evaluator.feed, skip_corrupt=skip)
    if evaluator.has_other_labels(stored):
        raise StaleError(f"{file} was made with other labels", remedy=REMEDY)


def totals_at(place: Place) -> Iterator[tuple[str, bytes]]:
    """Yield path or URL and content of the shards of an evaluation, in the order of the data; one is read at a time.

    ShardError where one is missing.
    """
    for file in ShardFolder(place, SUFFIX).complete():
        yield file, read_totals(file)


def read_totals(file: str) -> bytes:
    """Return the content of a shard. ShardError, DataError."""
    try:
        return read_shard_file(file)
    except OSError as error:
        raise ShardError(f"{file}: {error.strerror or error}", remedy="check the path") from None
