"""Totals in a file come back as they were; what a file does not hold is refused, and so is damage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantkit.errors import ShardError
from quantkit.evaluation.object_changes import ChangedMap, RunLengths
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.metrics.objects.found import FoundObjects
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.totals.tree_file import TreeReader

RECORD = record_shard(Shard(0, 1), range(3), RunIdentity({"batch size": 4}), files="")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | npst.arrays(st.sampled_from([np.float64, np.int32, np.bool_, np.uint8, "<U3"]), npst.array_shapes(min_side=0))
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """True for equal values of equal types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(st.dictionaries(st.text(max_size=4), TREES, max_size=4))
def test_a_tree_comes_back(tree: dict[str, Any]) -> None:
    content = EVALUATION.content_of(RECORD, tree)
    found = EVALUATION.parse(content, "x")
    assert found.shard == RECORD
    assert same(dict(found.tree), tree)
    assert EVALUATION.content_of(found.shard, found.tree) == content


def test_records_come_back() -> None:
    runs = {"size": [2, 3], "counts": b"0123"}
    found = FoundObjects(np.ones((1, 4)), np.ones(1), np.zeros(1, np.intp), (runs,), None, (2, 3))
    lengths = RunLengths((2, 3), (0, 1), (2, 4))
    entry = ChangedMap("a", None, 0.5, None, lengths, lengths)
    back = EVALUATION.parse(EVALUATION.content_of(RECORD, {"found": [found], "entry": entry}), "x").tree
    assert back["entry"] == entry
    assert back["found"][0].masks == (runs,)
    assert back["found"][0].boxes.tobytes() == found.boxes.tobytes()


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), 1 + 2j])
def test_other_values_have_no_place(value: Any) -> None:
    with pytest.raises(TypeError, match="has no place in a file"):
        EVALUATION.content_of(RECORD, {"x": value})


def test_another_file_is_refused() -> None:
    for content in (b"", b"\x02\0\0\0\0\0\0\0{}", EVALUATION.content_of(RECORD, {})[:-3]):
        with pytest.raises(ShardError, match="x is not a shard of an evaluation, or is damaged"):
            EVALUATION.parse(content, "x")


@pytest.mark.parametrize(
    "described",
    [
        1.5,
        {},
        {"float": "0x1p+0", "map": []},
        {"array": ["1 +", [2]]},
        {"array": ["O8", [1]]},
        {"array": ["<f8", [-1]]},
    ],
)
def test_trees_of_another_form_are_refused(described: Any) -> None:
    with pytest.raises(ValueError, match=r"another form|an array is"):
        TreeReader(b"", {}).value(described)
