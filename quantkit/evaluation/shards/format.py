"""The kind of file that holds the totals of an evaluation's shard."""

from __future__ import annotations

from quantkit.evaluation.object_changes import ChangedMap, RunLengths
from quantkit.metrics.boxes import ImageGeometry, Objects, Outline, Scene
from quantkit.metrics.objects.found import FoundObjects
from quantkit.totals import TotalsFormat

RECORDS = (ChangedMap, FoundObjects, ImageGeometry, Objects, Outline, RunLengths, Scene)
EVALUATION = TotalsFormat(
    ".evaluation.safetensors",
    "quantkit.evaluation",
    "a shard of an evaluation",
    remedy="make it again: quantkit evaluate --shard",
    records={kind.__name__: kind for kind in RECORDS},
)
