"""`mask-map`: COCO's mAP (mean average precision at IoU 0.50 … 0.95) of the masks of instance segmentation."""

from __future__ import annotations

from functools import partial

from quantkit.metrics.heads.find import describe_head
from quantkit.metrics.metric import BuiltInMetric
from quantkit.metrics.objects.object_map import MASKS, further_names, object_map_creator
from quantkit.metrics.scene_labels import open_outlined_scenes
from quantkit.metrics.task import Task

METRIC = BuiltInMetric(
    examples={"mask-map": "COCO's mAP of masks"},
    pattern=r"(?i:mask-map(?:50-95)?)(?::(?P<head>[\w-]+))?",
    create=object_map_creator(lambda _: MASKS),
    share=True,
    open_labels=open_outlined_scenes,
    label_kind="outlines",
    title=lambda _: MASKS.name,
    task=Task.SEGMENT,
    describe_head=partial(describe_head, task=Task.SEGMENT),
    figures=further_names(MASKS),
    words={"segm": "mask-map", "seg-map": "mask-map", "masks": "mask-map", "mask-ap": "mask-map"},
)
