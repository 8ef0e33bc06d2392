"""Warnings about the first batches: each speaks of what it describes, and ordinary data is passed in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.data import Portion, preflight
from quantkit.data.peeking import DataWatcher
from quantkit.preprocess import PRESETS, Preprocess, resolve_spec
from quantkit.values import ModelInput

NCHW, NHWC = ModelInput("image", "float32", ("N", 3, 16, 16)), ModelInput("image", "float32", ("N", 16, 16, 3))
CIFAR, CIFAR_LAST = resolve_spec(PRESETS["cifar10"], NCHW), resolve_spec(PRESETS["cifar10"], NHWC)


def normal(seed: int = 0, shape: tuple[int, ...] = (8, 3, 16, 16)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def look(*arrays: NDArray[Any], spec: Preprocess | None = None, name: str = "image") -> tuple[str, ...]:
    return preflight(
        [Portion({name: array}, ("",) * np.atleast_1d(array).shape[0], i) for i, array in enumerate(arrays)], spec
    )


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(8, 3, 16, 16), (4, 16, 16, 3), (8, 7), (3, 2, 5), (1, 3, 16, 16), (8, 1), (8,)]),
    scale=st.floats(0.01, 50),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_normalised_data_is_passed_in_silence(seed: int, shape: tuple[int, ...], scale: float, dtype: Any) -> None:
    values = [(scale * normal(seed + i, shape)).astype(dtype) for i in (0, 5000)]
    assert look(*values) == ()


def test_images_that_a_spec_centres_or_only_scales_are_passed_in_silence() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 3, 16, 16)).astype(np.float64)
    for spec in (CIFAR, resolve_spec(PRESETS["imagenet"], NCHW), resolve_spec(PRESETS["imagenet-caffe"], NCHW)):
        planes = (3, 1, 1)
        mean = np.broadcast_to(np.array(spec.mean), 3).reshape(planes)
        std = np.broadcast_to(np.array(spec.std), 3).reshape(planes)
        values = ((pixels * spec.scale - mean) / std).astype(np.float32)
        assert look(values[:8], values[8:], spec=spec) == ()
    assert look((pixels / 255).astype(np.float32), spec=resolve_spec(PRESETS["unit"], NCHW)) == ()


def test_no_batches_integers_and_numbers_without_axes_are_passed_in_silence() -> None:
    assert preflight([], CIFAR) == ()
    assert look(np.zeros((4, 3), np.int64)) == ()
    assert look(np.full((2, 3, 16, 16), 7, np.uint8)) == ()
    assert look(np.float32(3)[()], np.float32(3)[()]) == ()


@pytest.mark.parametrize("value", [0.0, -2.5, 255.0])
def test_one_value_throughout_is_no_data(value: float) -> None:
    (warning,) = look(np.full((4, 3, 16, 16), value, np.float32), np.full((4, 3, 16, 16), value, np.float32))
    assert f"every value is {value:g}" in warning
    assert "'image'" in warning


@given(flat=st.sets(st.integers(0, 7), min_size=1, max_size=7))
def test_constant_samples_are_counted(flat: set[int]) -> None:
    values = normal()
    for i in flat:
        values[i] = i / 8
    assert look(values) == (f"input 'image': {len(flat)} of the first 8 samples are constant",)


def test_equal_samples_and_duplicates_are_told_apart() -> None:
    one = normal(shape=(1, 3, 16, 16))
    (equal,) = look(np.repeat(one, 4, axis=0), np.repeat(one, 4, axis=0))
    assert "the first 8 samples are all equal" in equal
    (duplicates,) = look(np.concatenate([normal(), one]), np.concatenate([one, one]))
    assert "3 of the first 11 samples are duplicates" in duplicates
    assert look(one) == ()


def test_pixels_that_were_never_normalised_are_told() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16)).astype(np.float32)
    (warning,) = look(pixels, spec=resolve_spec(PRESETS["raw"], NCHW))
    assert "0 … 255" in warning
    assert "--preprocess" in warning
    assert look(pixels - 128) == ()
    assert look(pixels / 255) == ()
    assert look(pixels.reshape(4, -1)) == ()


@pytest.mark.parametrize(("spec", "shape"), [(CIFAR, (8, 3, 16, 16)), (CIFAR_LAST, (8, 16, 16, 3))])
def test_channels_far_from_zero_are_told_where_the_spec_centres_them(spec: Preprocess, shape: tuple[int, ...]) -> None:
    axis = shape.index(3)
    offset = np.zeros([3 if i == axis else 1 for i in range(4)], np.float32)
    offset.flat[1] = -6
    (warning,) = look(normal(shape=shape) + offset, spec=spec)
    told = warning.split("channel means are ")[1].split(" after")[0].split(", ")
    assert np.allclose([float(number) for number in told], [0, -6, 0], atol=0.1)
    assert look(normal(shape=shape) + offset, spec=spec.model_copy(update={"mean": (0.0,)})) == ()
    assert look(normal(shape=shape) + offset) == ()


def test_batches_of_different_shapes_are_looked_at_all_the_same() -> None:
    wide = normal(1, (8, 3, 16, 24))
    assert look(normal(), wide, spec=CIFAR) == ()
    assert look(normal(shape=(4, 7)), normal(1, (4, 9))) == ()
    (warning,) = look(np.zeros((4, 7), np.float32), np.zeros((4, 9), np.float32))
    assert "every value is 0" in warning


def test_an_input_without_batch_axis_holds_no_samples() -> None:
    shared = np.array([0.5, 1.0, 2.0], np.float32)
    portions = [Portion({"image": normal(i), "weights": shared}, ("",) * 8, i) for i in range(2)]
    assert preflight(portions, None) == ()


def test_a_table_that_belongs_to_every_batch_is_no_list_of_duplicates() -> None:
    table = np.repeat(normal(shape=(1, 16)), 4, axis=0)
    portions = [Portion({"x": normal(i, (4, 9)), "table": table}, ("",) * 4, i, axes={"table": None}) for i in range(2)]
    assert preflight(portions, None) == ()


def test_samples_along_another_axis_are_compared() -> None:
    frames = np.repeat(normal(shape=(16, 1, 3)), 4, axis=1)
    (warning,) = preflight([Portion({"x": frames}, ("",) * 4, 0, axes={"x": 1})], None)
    assert "the first 4 samples are all equal" in warning


def test_every_input_is_looked_at_and_named() -> None:
    batch = {"left": np.zeros((2, 4), np.float32), "right": np.ones((2, 4), np.float32)}
    left, right = preflight([Portion(batch, ("a", "b"), 1)], None)
    assert "'left'" in left
    assert "'right'" in right


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_the_watcher_looks_once_at_the_first_batches(batches: int) -> None:
    watcher = DataWatcher(None)
    for i in range(batches):
        array = np.zeros((4, 3), np.float32) if i < 2 else normal(i, (4, 3))
        watcher.see(Portion({"x": array}, ("a",) * 4, i + 1))
    watcher.look()
    watcher.look()
    assert watcher.warnings == ("input 'x': every value is 0; this is not real data",)
