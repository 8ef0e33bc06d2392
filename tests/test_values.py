"""The batch axis of every input, from the shapes of all of them."""

from __future__ import annotations

from typing import Any

import pytest

from quantkit.values import ModelInput, with_batch_axes

CASES: dict[str, tuple[list[tuple[Any, ...]], list[int | None]]] = {
    "one input": ([("N", 3, 8, 8)], [0]),
    "no names": ([(None, 3), (None, 4)], [0, 0]),
    "a table": ([(6, 16), ("N", 6, 16)], [None, 0]),
    "a scalar": ([("n", 16), ()], [0, None]),
    "names of tf2onnx": ([("unk__12", 3), ("unk__13", 4)], [0, 0]),
    "a time-major network": ([("time", "batch", 40)], [1]),
    "fixed time": ([(50, "batch", 40)], [1]),
    "a state": ([("batch", 512), (2, "batch", 128), ()], [0, 1, None]),
    "a state without names": ([(None, None), (2, None, 128), ()], [0, 1, None]),
    "a row of positions": ([(None, None), (1, None)], [0, None]),
    "boxes of all images": ([("batch", 3, 8, 8), ("boxes", 4)], [0, None]),
    "two names": ([("M", 3), ("K", 4)], [0, 0]),
    "fixed at 4": ([(4, 3), (4, 1)], [0, 0]),
    "fixed at 1 with a state": ([(2, 1, 64), (1, 512)], [None, 0]),
    "fixed at 8 with a table": ([(8, 3), (100, 2)], [0, None]),
    "dynamic images": ([(1, 3, None, None)], [0]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", CASES)
def test_the_batch_axis(case: str) -> None:
    shapes, axes = CASES[case]
    found = with_batch_axes([ModelInput(f"x{i}", "float32", shape) for i, shape in enumerate(shapes)])
    assert [i.batch_axis for i in found] == axes
    assert [i.shape for i in found] == shapes


def test_a_free_batch_is_dynamic_along_its_axis() -> None:
    fixed = ModelInput("x", "float32", (5, 2, 3), batch_axis=1)
    assert fixed.fixed_batch == 2
    assert fixed.with_free_batch().shape == (5, None, 3)
    assert fixed.with_free_batch().fixed_batch is None
    table = ModelInput("t", "float32", (5, 2), batch_axis=None)
    assert table.fixed_batch is None
    assert table.with_free_batch() is table
