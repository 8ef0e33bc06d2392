"""How the network is run: passes that fit the memory, slices that add up to the batch, threads that change neither."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from quantkit.calibration.memory_plan import (
    CACHED_BYTES,
    MemoryPlan,
    even_slice,
    group_by_size,
    plan_memory,
    slice_batch,
)
from quantkit.calibration.options import DEFAULT_MEMORY, CalibrateOptions
from quantkit.errors import UsageError
from quantkit.graph import Model, load_model, watched_tensors
from quantkit.values import Batch

TEXT = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 8, 8] x, float scale) => (float[N, 4, 6, 6] y) {
    c = Conv(x, w)
    r = Relu(c)
    y = Mul(r, scale)
}"""
SAMPLE = {"x": 192, "scale": 1, "c": 144, "r": 144, "y": 144}
"""Elements of every watched tensor for one sample."""

sizes = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 1000), max_size=12)


@given(sizes=sizes, limit=st.integers(1000, 5000))
def test_groups_keep_the_order_and_the_limit_and_none_could_take_its_successors_first(
    sizes: dict[str, int], limit: int
) -> None:
    found = group_by_size(sizes, limit)
    assert [name for group in found for name in group] == list(sizes)
    held = [sum(sizes[name] for name in group) for group in found]
    assert max(held) <= limit
    assert all(used + sizes[behind[0]] > limit for used, behind in zip(held, found[1:], strict=False))


@given(sizes=sizes, limit=st.integers(1, 1000))
def test_a_tensor_beyond_the_limit_is_named(sizes: dict[str, int], limit: int) -> None:
    beyond = [name for name, size in sizes.items() if size > limit]
    if not beyond:
        assert group_by_size(sizes, limit)
        return
    with pytest.raises(UsageError, match="max_memory=") as caught:
        group_by_size(sizes, limit)
    assert repr(beyond[0]) in caught.value.problem


@given(size=st.integers(1, 1 << 40), limit=st.integers(1, 1 << 40))
def test_the_memory_that_the_error_asks_for_is_enough(size: int, limit: int) -> None:
    if size <= limit:
        return
    with pytest.raises(UsageError) as caught:
        group_by_size({"x": size}, limit)
    ((number, unit),) = re.findall(r"--max-memory (\d+)([KMG])\b", caught.value.remedy)
    assert group_by_size({"x": size}, int(number) << {"K": 10, "M": 20, "G": 30}[unit]) == (("x",),)


@given(samples=st.integers(1, 40), size=st.integers(1, 50), wide=st.integers(0, 3))
def test_slices_add_up_to_the_batch(samples: int, size: int, wide: int) -> None:
    batch: Batch = {
        "x": np.arange(samples * 2.0).reshape(samples, 2),
        "ids": np.arange(samples),
        "scalar": np.array(3.0),
        "table": np.zeros((samples + 1, wide)),
    }
    slices = slice_batch(batch, samples, size)
    assert sum(n for _, n in slices) == samples
    assert all(0 < n <= size for _, n in slices)
    assert len({n for _, n in slices[:-1]}) <= 1
    for name in ("x", "ids"):
        assert [len(feeds[name]) for feeds, _ in slices] == [n for _, n in slices]
        assert np.array_equal(np.concatenate([feeds[name] for feeds, _ in slices]), batch[name])
    for name in ("scalar", "table"):
        assert all(feeds[name] is batch[name] for feeds, _ in slices)
    assert all(array.flags.c_contiguous for feeds, _ in slices for array in feeds.values())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    proto = parser.parse_model(TEXT)
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w"))
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(proto, path)
    return load_model(path)


def planned(
    model: Model, samples: int = 8, max_memory: int = DEFAULT_MEMORY, workers: int = 1, **options: Any
) -> MemoryPlan:
    first: dict[str, NDArray[Any]] = {"x": np.zeros((samples, 3, 8, 8), np.float32), "scale": np.array(1, np.float32)}
    options = {"whole": False, **options}
    return plan_memory(model, watched_tensors(model), first, samples, max_memory=max_memory, workers=workers, **options)


memories = st.integers(4 * 192, 1 << 33)


@given(samples=st.integers(1, 64), memory=memories, workers=st.integers(1, 200), whole=st.booleans())
def test_the_numbers_of_a_plan_are_independent_of_the_threads(
    model: Model, samples: int, memory: int, workers: int, whole: bool
) -> None:
    memory *= samples if whole else 1
    one, many = (planned(model, samples, memory, w, whole=whole) for w in (1, workers))
    assert (one.slice, one.passes, one.bytes) == (many.slice, many.passes, many.bytes)
    assert one.runners == 1 <= many.runners <= workers


@given(samples=st.integers(1, 64), memory=memories, workers=st.integers(1, 200))
def test_what_is_held_at_once_fits_the_memory(model: Model, samples: int, memory: int, workers: int) -> None:
    plan = planned(model, samples, memory, workers)
    heaviest = max(4 * sum(SAMPLE[name] for name in group) for group in plan.passes)
    assert [name for group in plan.passes for name in group] == list(SAMPLE)
    assert plan.bytes == heaviest * plan.slice
    assert plan.bytes * plan.runners <= memory
    assert plan.bytes <= CACHED_BYTES
    assert plan.bytes + heaviest > min(CACHED_BYTES, memory)


def test_a_slice_is_the_same_for_every_batch_size(model: Model) -> None:
    assert len({planned(model, samples).slice for samples in (1, 2, 7, 64)}) == 1


@given(samples=st.integers(1, 64))
def test_whole_batches_are_planned_whole(model: Model, samples: int) -> None:
    plan = planned(model, samples, whole=True)
    assert plan.slice == 0
    assert plan.bytes == 4 * (samples * sum(SAMPLE.values()) - (samples - 1) * SAMPLE["scale"])
    with pytest.raises(UsageError, match="'x'"):
        planned(model, samples, 4 * 192 * samples - 1, whole=True)


def test_one_tensor_beyond_the_memory_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="'x'"):
        planned(model, max_memory=4 * 192 - 1)
    assert planned(model, max_memory=4 * 192).passes == (("x",), ("scale", "c"), ("r",), ("y",))


def test_an_input_without_batch_axis_is_whole_in_every_slice(tmp_path: Path) -> None:
    text = "(float[N, 6] x, float[50, 6] table) => (float[N, 50] y) { t = Transpose(table)  y = MatMul(x, t) }"
    onnx.save(parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}'), tmp_path / "net.onnx")
    model = load_model(tmp_path / "net.onnx")
    first = {"x": np.zeros((3, 6), np.float32), "table": np.zeros((50, 6), np.float32)}
    plan = plan_memory(model, watched_tensors(model), first, 3, max_memory=1 << 20, workers=1, whole=True)
    assert plan.bytes == 4 * (3 * 6 + 50 * 6 + 6 * 50 + 3 * 50)


def test_a_tensor_of_unknown_size_is_taken_for_the_largest(tmp_path: Path) -> None:
    text = TEXT.replace("y = Mul(r, scale)", "n = NonZero(r)  f = Cast<to = 1>(n)  y = Mul(r, scale)  z = Exp(f)")
    proto = parser.parse_model(text.replace("=> (float[N, 4, 6, 6] y)", "=> (float[N, 4, 6, 6] y, float z)"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w"))
    onnx.save(proto, tmp_path / "net.onnx")
    plan = planned(load_model(tmp_path / "net.onnx"), samples=1, whole=True)
    assert plan.bytes == 4 * (sum(SAMPLE.values()) + 2 * 192)


@given(most=st.integers(1, 300), samples=st.integers(1, 300))
def test_slices_on_a_gpu_have_one_shape_where_that_costs_less_than_half(most: int, samples: int) -> None:
    size = even_slice(most, samples)
    assert 1 <= size <= max(most, 1)
    assert 2 * size >= min(most, samples)
    if any(samples % k == 0 for k in range((most + 1) // 2, most + 1)) or most >= samples:
        assert samples % size == 0


def test_a_gpu_takes_larger_slices_in_two_threads(model: Model) -> None:
    one = planned(model, workers=8)
    two = planned(model, workers=8, on_gpu=True)
    assert (two.slice, two.runners) == (8, 2)
    assert one.passes == two.passes
    assert planned(model, samples=6, max_memory=2 * 5 * one.bytes // one.slice, on_gpu=True).slice == 3


def test_memory_is_1_gib_or_4_of_a_gpu() -> None:
    assert CalibrateOptions().memory == 1 << 30
    assert CalibrateOptions(provider="cuda:1").memory == 4 << 30
    assert CalibrateOptions(provider="cuda", max_memory=5).memory == 5
