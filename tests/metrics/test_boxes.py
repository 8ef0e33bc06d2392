"""Boxes: the mapping between image and input against the pixels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quantkit.data.pixels import fit_size
from quantkit.metrics.boxes import ImageGeometry, image_geometry
from quantkit.preprocess import Preprocess

# Geometry ---------------------------------------------------------------------------------------------------------

sides = st.integers(20, 250)


@settings(max_examples=60)
@given(
    st.tuples(sides, sides), st.tuples(sides, sides),
    st.sampled_from(["exact", "letterbox", "shortest"]), st.sampled_from([1.0, 0.875]),
)  # fmt: skip
def test_the_geometry_is_what_happened_to_the_pixels(
    size: tuple[int, int], wanted: tuple[int, int], resize: Any, crop: float
) -> None:
    """Pixels that hold their own x (or y) coordinate keep it after resizing and cropping."""
    spec = Preprocess(resize=resize, size=wanted, crop_fraction=crop, pad=255)
    found = image_geometry(spec, size)
    for axis in (0, 1):
        ramp = np.broadcast_to(np.arange(size[axis], dtype=np.uint8), (size[1 - axis], size[axis]))
        picture = np.asarray(fit_size(Image.fromarray(np.ascontiguousarray(ramp if axis == 0 else ramp.T)), spec))
        middle = picture.shape[axis] // 2  # a line through the picture, away from any padding
        line = picture[middle, :] if axis == 0 else picture[:, middle]
        position = (np.arange(line.size) + 0.5 - found.offset[axis]) / found.scale[axis] - 0.5
        margin = 1.0 + 1.0 / found.scale[axis]
        inside = (position > margin) & (position < size[axis] - 1 - margin)
        assert np.all(np.abs(line[inside] - position[inside]) <= 1.01)
        outside = (position < -0.5) | (position > size[axis] - 0.5)
        assert np.all(line[outside] == 255)


def test_boxes_come_back_to_the_image_and_end_at_its_edges() -> None:
    found = image_geometry(Preprocess(resize="letterbox", size=(640, 640)), (1280, 720))
    assert found == ImageGeometry((1280, 720), (0.5, 0.5), (0.0, 140.0), (640, 640))
    boxes = np.array([[100.0, 200.0, 300.0, 400.0], [-50.0, 0.0, 700.0, 640.0]])
    assert found.to_image(boxes).tolist() == [[200, 120, 600, 520], [0, 0, 1280, 720]]
