"""Names that moved to `quantkit.metrics.labels`."""

from quantkit.metrics.labels.coco_json import read_coco
from quantkit.metrics.labels.rows import as_objects
from quantkit.metrics.labels.yolo_text import read_yolo

__all__ = ["as_objects", "read_coco", "read_yolo"]
