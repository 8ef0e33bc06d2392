"""`map`: COCO's mAP (mean average precision at IoU 0.50 … 0.95) of the boxes of a detector; `map50` at IoU 0.50.

`yolo` is an older name of `map`.
"""

from __future__ import annotations

from functools import partial

from quantkit.metrics.heads.find import describe_head
from quantkit.metrics.metric import BuiltInMetric
from quantkit.metrics.objects.object_map import BOXES, BOXES_50, further_names, object_map_creator
from quantkit.metrics.scene_labels import open_scenes
from quantkit.metrics.task import Task

METRIC = BuiltInMetric(
    examples={"map": "COCO's mAP of boxes", "map50": "at IoU 0.50"},
    pattern=r"(?:(?i:map(?P<at>50(?P<all>-95)?)?)|yolo)(?::(?P<head>[\w-]+))?",
    create=object_map_creator(lambda match: BOXES_50 if match["at"] and not match["all"] else BOXES),
    share=True,
    open_labels=open_scenes,
    label_kind="boxes",
    title=lambda match: BOXES_50.name if match["at"] and not match["all"] else BOXES.name,
    task=Task.DETECT,
    describe_head=partial(describe_head, task=Task.DETECT),
    figures=further_names(BOXES),
    words={"coco": "map", "ap": "map", "box-map": "map", "ap50": "map50", "yolo50": "map50", "voc": "map50"},
)
