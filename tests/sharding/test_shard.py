"""Shards cut the batches of a run into contiguous runs, and are merged only if all are there, once, and of one run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.artifact import Digest
from quantkit.errors import ShardError, UsageError
from quantkit.sharding import RunIdentity, Shard, ShardRecord, order_shards, record_shard
from quantkit.sharding.shard import shard_of_file

PARTS = {"model": Digest("ab" * 32), "batch size": 8, "preprocessing": {"size": [32, 32], "mean": [0.0]}, "limit": None}


def shards(count: int, total: int, **changed: Any) -> dict[str, ShardRecord]:
    """The records of all shards of a run, by file name."""
    run = RunIdentity({**PARTS, **{name.replace("_", " "): value for name, value in changed.items()}})
    every = [Shard(index, count) for index in range(count)]
    return {s.stem: record_shard(s, s.batches_of(total), run, files="") for s in every}


@given(st.integers(1, 200), st.integers(1, 200))
def test_every_batch_is_in_exactly_one_shard_in_order(count: int, total: int) -> None:
    if count > total:
        with pytest.raises(UsageError, match=f"cannot be divided into {count} shards"):
            Shard(0, count).batches_of(total)
        return
    parts = [Shard(index, count).batches_of(total) for index in range(count)]
    assert [batch for part in parts for batch in part] == list(range(total))
    sizes = {len(part) for part in parts}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 1_000_000), st.data())
def test_text_and_file_name_give_the_shard_back(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(0, count - 1)), count)
    assert Shard.named(str(shard)) == shard
    assert shard_of_file(f"{shard.stem}.stats.safetensors") == shard


@pytest.mark.parametrize("text", ["", "3", "3/", "/4", "4/4", "-1/4", "0/0", "1.0/4", "3/64 ", "٣/64", "0/9999999", 3])
def test_what_is_no_shard_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match="shard") as refused:
        Shard.named(text)
    assert ("a variable of the shell may be unset" in refused.value.remedy) == (text in ("", "3/", "/4"))


@pytest.mark.parametrize(
    "name", ["3-of-64.x", "00003-of-0064.x", "0064-of-0064.x", "0003-of-0064x.y", "x0003-of-0064", ""]
)
def test_other_files_are_no_shards(name: str) -> None:
    assert shard_of_file(name) is None


@given(st.integers(1, 12), st.integers(0, 30), st.randoms(use_true_random=False))
def test_complete_shards_come_in_the_order_of_the_data(count: int, more: int, random: Any) -> None:
    records = list(shards(count, count + more).items())
    random.shuffle(records)
    assert order_shards(dict(records)) == [Shard(index, count).stem for index in range(count)]


def test_missing_shards_are_listed_as_options() -> None:
    records = shards(7, 30)
    del records["0002-of-0007"], records["0005-of-0007"]
    with pytest.raises(ShardError, match="2 of 7 shards are missing") as caught:
        order_shards(records)
    assert caught.value.details == ("--shard 2/7", "--shard 5/7")


def test_a_shard_that_is_there_twice_is_named() -> None:
    records = shards(3, 9)
    records["copy"] = records["0001-of-0003"]
    with pytest.raises(ShardError, match=r"0001-of-0003 and copy are both shard 1/3"):
        order_shards(records)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": Digest("cd" * 32)}, ": model"),
        ({"batch_size": 16}, r": batch size \(16, and 8\)"),
        ({"preprocessing": {"size": [32, 32], "mean": [0.5]}}, r": preprocessing \(mean\)"),
        ({"limit": 100, "model": Digest("cd" * 32)}, r": model, limit \(100, and none\)"),
    ],
)
def test_a_shard_of_another_run_is_named_with_what_differs(changed: dict[str, Any], words: str) -> None:
    records = {**shards(4, 9), "0002-of-0004": shards(4, 9, **changed)["0002-of-0004"]}
    with pytest.raises(ShardError, match=f"^0002-of-0004 and 0000-of-0004 are of different runs{words}\n"):
        order_shards(records)


def test_another_number_of_shards_is_another_run() -> None:
    with pytest.raises(ShardError, match=r"number of shards \(3, and 4\)"):
        order_shards({**shards(4, 9), "x": shards(3, 9)["0001-of-0003"]})


def test_a_record_with_other_batches_is_refused() -> None:
    records = shards(3, 9)
    records["0001-of-0003"] = records["0001-of-0003"].model_copy(update={"start": 2})
    with pytest.raises(ShardError, match="0001-of-0003 holds the batches 2 to 5 of 9"):
        order_shards(records)
