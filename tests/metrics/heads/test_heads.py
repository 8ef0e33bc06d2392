"""Heads: the same objects come out of every layout, and a layout is recognised where it is unambiguous."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantkit.errors import DataError, UsageError
from quantkit.metrics.heads.detections import Detections, suppress_overlaps
from quantkit.metrics.heads.facts import declared_facts, example_facts
from quantkit.metrics.heads.find import LAYOUTS, describe_head, find_head, fitting_heads, require_head
from quantkit.metrics.heads.head import Ending, HeadQuestion
from quantkit.metrics.heads.yolo_raw import ANCHORS
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.values import Array
from tests.support import heads
from tests.support.heads import CANVAS, Row

ROWS: list[Row] = [(10, 12, 58, 60, 0.4, 0), (70, 30, 120, 74, 0.3, 2), (4, 62, 42, 92, 0.2, 1)]
Maker = Callable[[Sequence[Row]], Mapping[str, Array]]
KNOWN = NetworkFacts(Task.DETECT, ("a", "b", "c"))
MAKERS: dict[str, tuple[Maker, str]] = {
    "v8": (heads.v8, "v8"),
    "v5": (heads.v5, "v5"),
    "end2end": (heads.end2end, "end2end"),
    "yolox": (heads.yolox, "yolox"),
    "v5-raw": (partial(heads.anchored, anchors=ANCHORS["v5-raw", 3], flat=True), "v5-raw"),
    "v5-raw, 5 axes": (partial(heads.anchored, anchors=ANCHORS["v5-raw", 3], flat=False), "v5-raw"),
    "v7-raw": (partial(heads.anchored, anchors=ANCHORS["v7-raw", 3], flat=True), "v7-raw"),
    "v8-raw": (partial(heads.distances, bins=16, split=False), "v8-raw"),
    "v8-raw, two outputs": (partial(heads.distances, bins=16, split=True), "v8-raw"),
    "26-raw": (partial(heads.distances, bins=1, split=False), "v8-raw"),
    "detr": (heads.detr, "detr"),
    "rtdetr": (partial(heads.detr, background=False), "rtdetr"),
    "ssd": (heads.ssd, "ssd"),
    "ssd in pixels": (partial(heads.ssd, relative=False), "ssd"),
    "retinanet": (partial(heads.ssd, background=False, relative=False), "retinanet"),
    "nms": (heads.nms, "nms"),
    "nms, fractions": (partial(heads.nms, relative=True), "nms"),
    "torchvision": (heads.torchvision, "torchvision"),
    "selected": (heads.selected, "selected"),
    "selected-xy": (partial(heads.selected, swapped=False), "selected-xy"),
    "rows": (heads.rows7, "nms"),
}
NAMED = {"yolox", "v7-raw", "selected-xy"}
"""Layouts that are never recognised without their name."""


def question(outputs: Mapping[str, Array], network: NetworkFacts = KNOWN) -> HeadQuestion:
    return HeadQuestion(example_facts(outputs), network)


def decoded(outputs: Mapping[str, Array], layout: str, network: NetworkFacts = KNOWN) -> Detections:
    head = require_head(question(outputs, network), layout, "map")
    (one,) = head.split(tuple(outputs[name] for name in head.outputs), 1)
    found = head.decode(one, CANVAS)
    return replace(found, classes=found.classes - head.first)


def test_every_layout_is_tried() -> None:
    assert {layout for _, layout in MAKERS.values()} == set(LAYOUTS)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_objects_come_out_of_every_head(name: str) -> None:
    maker, layout = MAKERS[name]
    found = decoded(maker(ROWS), layout)
    seen = found.scores > 0.05
    assert np.allclose(found.boxes[seen], [row[:4] for row in ROWS], atol=2e-3)
    assert np.allclose(found.scores[seen], [row[4] for row in ROWS], atol=1e-5)
    assert found.classes[seen].tolist() == [0, 2, 1]


@pytest.mark.parametrize("name", MAKERS)
def test_no_objects_come_out_of_nothing(name: str) -> None:
    maker, layout = MAKERS[name]
    assert not (decoded(maker([]), layout).scores > 0.05).any()


@pytest.mark.parametrize("name", MAKERS)
def test_a_head_is_recognised_with_metadata(name: str) -> None:
    maker, layout = MAKERS[name]
    found = find_head(question(maker(ROWS)))
    if layout in NAMED:
        assert found is None or found.layout != layout
        return
    assert found is not None
    assert (found.layout, found.task) == (layout, Task.DETECT)


def test_a_head_without_a_name_says_which_it_may_be() -> None:
    raw = heads.anchored(ROWS, ANCHORS["v5-raw", 3], flat=True)
    with pytest.raises(UsageError, match="a v5-raw or a v7-raw") as caught:
        require_head(question(raw, NetworkFacts()), None, "map")
    assert "--metric map:v7-raw" in caught.value.remedy
    logits = heads.detr(ROWS)
    with pytest.raises(UsageError, match="detr or a rtdetr"):
        require_head(question(logits, NetworkFacts()), None, "map")
    with pytest.raises(UsageError, match="those of no known head") as caught:
        require_head(question({"a": np.zeros((1, 1000), np.float32)}), None, "map")
    assert "map:v8" in caught.value.remedy
    with pytest.raises(UsageError, match=r"not a detr head.*output0 \[1, 7, 60\]"):
        require_head(question(heads.v8(ROWS)), "detr", "map")
    with pytest.raises(UsageError, match="rotated boxes"):
        require_head(question(heads.v8(ROWS), NetworkFacts(Task.OBB)), None, "map")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 84, 8400), "v8"), ((1, 5, 8400), "v8"), ((1, 84, 85), "v8"), ((1, 6, 8400), "v8"), ((-1, 84, -1), "v8"),
        ((1, 25200, 85), "v5"), ((1, 25200, 7), "v5"),
        ((1, 300, 6), "end2end"), ((-1, -1, 6), "end2end"),
        ((1, 25200, 6), None), ((1, 84, 84), None), ((1, 4, 8400), None), ((1, 3, 80, 80, 85), None), ((1, 1000), None),
        ((1, 3, 64, 64), None), ((1, 21, 64, 64), None),
    ],
)  # fmt: skip
def test_a_head_is_inferred_from_declared_shapes(shape: tuple[int, ...], layout: str | None) -> None:
    found = find_head(HeadQuestion(declared_facts({"output0": shape})))
    assert (found and found.layout) == layout


def test_heads_are_described() -> None:
    facts = NetworkFacts()
    assert describe_head({"output0": (1, 84, 8400)}, facts, Task.DETECT) == "v8 head, 80 classes"
    assert describe_head({"output0": (1, 5, 8400)}, facts, Task.DETECT) == "v8 head, 1 class"
    assert describe_head({"output0": (1, 84, 8400)}, facts, Task.SEGMENT) is None
    shapes = {"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}
    assert describe_head(shapes, facts, Task.SEGMENT) == "v8 head, 80 classes"
    pose = NetworkFacts(Task.POSE, ("person",), (17, 3))
    assert describe_head({"output0": (1, 56, 8400)}, pose, Task.POSE) == "v8 head, 1 class"
    assert describe_head({"output0": (1, 300, 57)}, pose, Task.POSE) == "end2end head, 1 class"


def test_class_numbers_decide_between_end_to_end_and_v5() -> None:
    rows = heads.end2end(ROWS, most=50)
    assert find_head(question(rows, NetworkFacts())).layout == "end2end"  # type: ignore[union-attr]
    probabilities = rows["output0"] * np.float32(0.3)
    assert find_head(question({"output0": probabilities}, NetworkFacts())).layout == "v5"  # type: ignore[union-attr]


def test_metadata_decide_how_queries_are_scored() -> None:
    for background, layout in ((True, "detr"), (False, "rtdetr")):
        found = find_head(question(heads.detr(ROWS, background=background)))
        assert found is not None
        assert (found.layout, found.classes) == (layout, heads.CLASSES)


def test_the_graph_decides_how_scores_are_made() -> None:
    """A sigmoid in the graph is not applied again, and tells a RetinaNet from an SSD."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Transpose", ["s"], ["scores"], perm=[0, 2, 1]),
        helper.make_node("Identity", ["y"], ["boxes"]),
    ]
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y", "scores", "boxes")]
    graph = helper.make_graph(nodes, "g", floats[:2], floats[2:])
    facts = example_facts(heads.ssd(ROWS, background=False), graph)
    assert [output.ending for output in facts] == [Ending.SIGMOID, Ending.OTHER]
    found = find_head(HeadQuestion(facts))
    assert found is not None
    assert found.layout == "retinanet"
    logits = [replace(output, ending=Ending.OTHER) for output in facts]
    assert [head.layout for head in fitting_heads(HeadQuestion(tuple(logits)))] == ["ssd", "retinanet"]


def test_an_nms_in_the_graph_declares_the_form_of_its_boxes() -> None:
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["indices"], center_point_box=1)
    graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name="indices")])
    outputs = dict(heads.selected(ROWS, swapped=False))
    corner = outputs["boxes"].astype(np.float64)
    outputs["boxes"] = np.concatenate([(corner[..., :2] + corner[..., 2:]) / 2, corner[..., 2:] - corner[..., :2]], 2)
    head = find_head(HeadQuestion(example_facts(outputs, graph)))
    assert head is not None
    (one,) = head.split(tuple(outputs[name] for name in head.outputs), 1)
    assert np.allclose(head.decode(one, CANVAS).boxes, [row[:4] for row in ROWS])


def test_a_box_counts_for_every_class_that_it_scores_in() -> None:
    output = heads.v8(ROWS[:1])["output0"].copy()
    output[0, 5, 0] = 0.3
    assert decoded({"output0": output}, "v8").classes.tolist() == [0, 1]


def test_masks_and_keypoints_follow_their_boxes() -> None:
    prototypes = np.stack([np.full((6, 8), 1.0), np.full((6, 8), -1.0)]).astype(np.float32)
    v8 = np.zeros((1, 4 + heads.CLASSES + 2, 60), np.float32)
    v8[0, :7] = heads.v8(ROWS)["output0"][0]
    v8[0, 7, 1], v8[0, 8, 0] = 2.0, 3.0
    found = decoded({"output0": v8, "output1": prototypes[None]}, "v8", NetworkFacts(Task.SEGMENT, ("a", "b", "c")))
    assert found.levels is not None
    assert found.levels[:, 0, 0].tolist() == [-3.0, 2.0, 0.0]
    points = np.arange(12, dtype=np.float32).reshape(2, 6)
    end = np.zeros((1, 9, 12), np.float32)
    end[0, :2, :6], end[0, :2, 6:] = np.array(ROWS)[[1, 0]], points
    pose = decoded({"output0": end}, "end2end", NetworkFacts(Task.POSE, ("a", "b", "c"), (2, 3)))
    assert pose.keypoints is not None
    assert pose.keypoints.reshape(2, 6).tolist() == points[[1, 0]].tolist()


def test_lists_of_several_images_are_refused() -> None:
    outputs = heads.torchvision(ROWS)
    head = require_head(question(outputs), "torchvision", "map")
    with pytest.raises(DataError, match="cannot be kept apart"):
        list(head.split(tuple(outputs[name] for name in head.outputs), 2))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.7]))
@settings(max_examples=30)
def test_suppression_is_its_definition(seed: int, overlap: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 30, (25, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 30, (25, 2))], axis=1)
    boxes[3, 2:] = boxes[3, :2]  # no area
    classes = random.integers(0, 2, 25)

    def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
        return float(common / total) if total else 0.0

    kept: list[int] = []
    for i in range(25):
        if all(classes[i] != classes[k] or iou(boxes[i], boxes[k]) <= overlap for k in kept):
            kept.append(i)
    assert suppress_overlaps(boxes, classes, overlap).tolist() == kept


def test_other_networks_are_not_taken_for_detectors() -> None:
    random = np.random.default_rng(0)
    noise = {shape: random.normal(size=shape).astype(np.float32) for shape in ((2, 50, 768), (2, 197, 64), (4, 7))}
    for outputs in ({"hidden": values} for values in noise.values()):
        assert find_head(question(outputs, NetworkFacts())) is None
    pyramid = {f"p{at}": np.zeros((1, 256, 64 >> at, 64 >> at), np.float32) for at in range(3)}
    assert find_head(question(pyramid, NetworkFacts())) is None
    assert find_head(question({"image": np.zeros((1, 3, 64, 64), np.float32)}, NetworkFacts())) is None
