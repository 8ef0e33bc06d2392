"""The task of a network, its classes and keypoints, as its metadata declare them.

Ultralytics' exports carry `task`, `names`, `kpt_shape`, `imgsz` and `stride` as texts, which Python printed: `{0:
'person', 1: 'car'}`, `[17, 3]`. Such texts are YAML as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from quantkit.document import bounded_yaml
from quantkit.preprocess import is_ultralytics
from quantkit.values import MOST_CLASSES

MOST_KEYPOINTS = 10_000


class Task(Enum):
    """The kinds of networks that take images, in Ultralytics' words."""

    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    SEMANTIC = "semantic"

    @property
    def labels(self) -> str:
        """The kind of its labels."""
        return LABELS[self]


LABELS = {
    Task.CLASSIFY: "classes",
    Task.DETECT: "boxes",
    Task.SEGMENT: "outlines",
    Task.POSE: "keypoints",
    Task.OBB: "rotated boxes",
    Task.SEMANTIC: "class maps",
}


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """The declarations in a network's metadata. task: None if unknown. names: of classes, by index; empty if unknown.

    keypoints: their number, and the numbers of each (2 or 3); None if there are none. description: that of an
    Ultralytics export, which names the architecture.
    """

    task: Task | None = None
    names: tuple[str, ...] = ()
    keypoints: tuple[int, int] | None = None
    description: str = ""


def network_facts(metadata: Mapping[str, str]) -> NetworkFacts:
    """Return what Ultralytics' metadata declare; nothing for metadata of others, and for entries that are damaged."""
    if not is_ultralytics(metadata):
        return NetworkFacts()
    task = next((task for task in Task if task.value == metadata.get("task")), None)
    return NetworkFacts(
        task,
        names_by_index(printed_value(metadata.get("names"))),
        keypoint_shape(printed_value(metadata.get("kpt_shape"))),
    )


def printed_value(text: str | None) -> Any:
    """Return a value that Python printed; None if it is absent or something else."""
    try:
        return None if text is None else bounded_yaml(text)
    except (ValueError, RecursionError):
        return None


def names_by_index(value: Any) -> tuple[str, ...]:
    """Return names by index from a list, or from a mapping whose keys are 0 … n−1; empty for anything else."""
    if isinstance(value, dict):
        keys = [str(index) for index in range(len(value))]
        value = [value[key] for key in keys] if set(value) == set(keys) else None
    if not isinstance(value, list) or len(value) > MOST_CLASSES:
        return ()
    return tuple(map(str, value))


def keypoint_shape(value: Any) -> tuple[int, int] | None:
    """Return the number of keypoints and of the numbers of each; None for anything else."""
    if not (isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)):
        return None
    count, numbers = value
    return (count, numbers) if 0 < count <= MOST_KEYPOINTS and numbers in (2, 3) else None
