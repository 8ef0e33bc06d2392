"""`keypoint-map`: COCO's mAP of keypoints, at object keypoint similarity (OKS) 0.50 … 0.95.

Sigmas are COCO's for 17 keypoints, and 1/K for each of any other number K, as in Ultralytics' validation.
"""

from __future__ import annotations

from functools import partial

from quantkit.metrics.heads.find import describe_head
from quantkit.metrics.metric import BuiltInMetric
from quantkit.metrics.objects.object_map import KEYPOINTS, further_names, object_map_creator
from quantkit.metrics.scene_labels import open_keypoint_scenes
from quantkit.metrics.task import Task

METRIC = BuiltInMetric(
    examples={"keypoint-map": "COCO's mAP of keypoints"},
    pattern=r"(?i:keypoint-map(?:50-95)?)(?::(?P<head>[\w-]+))?",
    create=object_map_creator(lambda _: KEYPOINTS),
    share=True,
    open_labels=open_keypoint_scenes,
    label_kind="keypoints",
    title=lambda _: KEYPOINTS.name,
    task=Task.POSE,
    describe_head=partial(describe_head, task=Task.POSE),
    figures=further_names(KEYPOINTS),
    words={"oks": "keypoint-map", "pose": "keypoint-map", "keypoints": "keypoint-map"},
)
