"""Shards of a sensitivity analysis as files: made once, and reused if nothing changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantkit.data import DataOptions
from quantkit.data.image_list import given_data
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import UsageError
from quantkit.graph import AnyModel
from quantkit.keywords.option_fields import takes_fields
from quantkit.progress import NoProgress, Progress
from quantkit.sensitivity.options import LayersFields, LayersOptions
from quantkit.sensitivity.shards.maker import SENSITIVITY, SensitivityShards
from quantkit.sensitivity.subject import QuantizationSources, open_subject
from quantkit.sharding import Shard, ShardRecord
from quantkit.sharding.folder import given_place
from quantkit.totals import make_shard
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.statistics import Statistics


@dataclass(frozen=True, slots=True)
class MeasuredShard:
    """One shard of a sensitivity analysis, whose totals are in `file`. reused: it was there, and nothing changed."""

    record: ShardRecord
    file: str
    samples: int
    layers: int
    reused: bool
    seconds: float


@takes_fields(LayersOptions, DataOptions)
def layers_shard(
    model: AnyModel,
    data: Any,
    shard: str | Shard,
    output: str | os.PathLike[str],
    *,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    table: str | os.PathLike[str] | None = None,
    against: AnyModel | None = None,
    preprocess: AnyPreprocess = None,
    options: LayersOptions | None = None,
    progress: Progress | None = None,
    **_: Unpack[LayersFields],
) -> MeasuredShard:
    """Measure the layers on one part of the samples, and write the totals; `layers(…, merge=output)` adds them up.

    shard: `"3/64"` for the part 3 of the 64 parts 0, 1 … 63. output: the folder or the URL of all of them. A shard
    that is there is reused, unless `force=True` is given. The other arguments are those of `layers`, and so are the
    errors; StaleError where a shard of another run is there, OutputError where it cannot be written.
    """
    options, data = checked_options(options, LayersOptions), given_data(data)
    if options.merge is not None:
        raise UsageError("--merge adds up all shards, and --shard makes one", remedy="give only one of them")
    if options.keep is not None or options.keep_db is not None:
        raise UsageError("which layers to keep follows from all shards", remedy="give it when they are merged")
    started, chosen, place = time.monotonic(), Shard.named(shard), given_place(output, "output")
    assert place is not None
    if data is None:
        raise UsageError("a shard is a part of the data", remedy="give --data")
    subject = open_subject(model, QuantizationSources(statistics, table, against), preprocess, data, options)
    made = make_shard(
        SensitivityShards(subject, data, preprocess, options),
        SENSITIVITY,
        place,
        chosen,
        progress or NoProgress(),
        force=options.force,
        skip_corrupt=options.data.skip_corrupt,
    )
    known, count, seconds = made.totals, len(subject.variants.layers), time.monotonic() - started
    return MeasuredShard(known.shard, made.file, known.samples, count, made.reused, seconds)
