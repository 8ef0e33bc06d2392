"""Shards of an evaluation as files: made once, and reused if nothing changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import UsageError
from quantkit.evaluation.options import EvaluateFields, EvaluateOptions
from quantkit.evaluation.request import open_request
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.graph import AnyModel
from quantkit.keywords.option_fields import takes_fields
from quantkit.progress import NoProgress, Progress
from quantkit.sharding import Shard, ShardRecord
from quantkit.sharding.folder import given_place
from quantkit.totals import make_shard
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
        made = make_shard(
            ShardEvaluator(subjects, request, held),
            EVALUATION,
            place,
            chosen,
            progress or NoProgress(),
            force=options.force,
            skip_corrupt=options.data.skip_corrupt,
        )
    names, known = tuple(subject.name for subject in subjects), made.totals
    seconds = time.monotonic() - started
    return EvaluatedShard(known.shard, made.file, known.samples, names, made.reused, seconds)
