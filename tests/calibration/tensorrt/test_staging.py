"""Batches reach the GPU in order and whole, in the memory of two of them, all of which is given back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit.calibration.tensorrt.staging import Staging, copy_filled, mark_last, order_addresses
from quantkit.data import Portion
from quantkit.errors import BackendError, DataError
from tests.support.fake_gpu import FakeFeed, FakeGpu, filled


class BrokenError(Exception):
    """Something in the data went wrong."""


def started(gpu: FakeGpu, feed: FakeFeed) -> Staging:
    portions = feed()
    staging = Staging(gpu, portions)
    staging.start(next(portions))
    return staging


def exhaust(staging: Staging) -> None:
    while staging.take() is not None:
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def check(gpu: FakeGpu, staged: dict[str, int], portion: Portion, samples: int) -> None:
    assert list(staged) == list(portion.batch)
    for name, array in portion.batch.items():
        wanted = filled(array, portion, samples)
        assert np.array_equal(gpu.read(staged[name], wanted), wanted), name


@pytest.mark.parametrize("late", [False, True])
@given(count=st.integers(1, 9), size=st.integers(1, 6), last=st.integers(1, 6), seed=st.integers(0, 1000))
@example(count=1, size=5, last=5, seed=0)
@example(count=5, size=6, last=1, seed=0)
@example(count=5, size=5, last=3, seed=0)
def test_every_batch_arrives_whole_and_in_order(late: bool, count: int, size: int, last: int, seed: int) -> None:
    last = min(last, size) if count > 1 else size
    feed, gpu = FakeFeed([size] * (count - 1) + [last], seed=seed), FakeGpu(late=late)
    staging = started(gpu, feed)
    addresses = set()
    for portion in feed.portions:
        taken = staging.take()
        assert taken is not None
        addresses.update(taken.addresses.values())
        check(gpu, taken.addresses, portion, size)
        assert taken.samples == portion.samples
    assert staging.take() is None
    assert staging.take() is None
    assert (staging.seen.staged, staging.seen.taken) == (count, count)
    assert (staging.seen.samples, staging.seen.repeated) == (size * (count - 1) + last, size - last)
    assert gpu.peak == staging.bytes == 2 * feed.bytes
    assert len(addresses) == min(count, 2) * len(feed.portions[0].batch)
    staging.close()
    assert (gpu.given_back, staging.bytes, feed.closed) == (True, 0, True)


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_stays_until_the_next_one_is_asked_for(late: bool) -> None:
    """However far the thread is ahead meanwhile."""
    feed, gpu = FakeFeed([4] * 6), FakeGpu(late=late)
    staging = started(gpu, feed)
    for number, portion in enumerate(feed.portions):
        taken = staging.take()
        assert taken is not None
        ahead = min(number + 2, 6)
        wait_for(lambda ahead=ahead: staging.seen.staged == ahead)  # type: ignore[misc]
        time.sleep(0.005)
        assert staging.seen.staged <= number + 2
        check(gpu, taken.addresses, portion, 4)
    staging.close()


@given(late=st.booleans(), count=st.integers(1, 6), taken=st.integers(0, 6))
def test_close_at_any_time_gives_everything_back(late: bool, count: int, taken: int) -> None:
    feed, gpu = FakeFeed([3] * count), FakeGpu(late=late)
    staging = started(gpu, feed)
    for _ in range(taken):
        staging.take()
    staging.close()
    assert (gpu.given_back, feed.closed) == (True, True)
    staging.close()


def test_close_while_the_thread_waits_for_room() -> None:
    feed, gpu = FakeFeed([3] * 6), FakeGpu()
    staging = started(gpu, feed)
    wait_for(lambda: staging.seen.staged == 2)
    staging.close()
    assert (gpu.given_back, feed.closed, staging.seen.staged) == (True, True, 2)


def test_close_without_a_start_is_nothing() -> None:
    gpu = FakeGpu()
    Staging(gpu, iter(())).close()
    assert gpu.buffers == 0


@pytest.mark.parametrize("error", [BrokenError(), KeyboardInterrupt(), SystemExit(3), MemoryError()])
@given(count=st.integers(1, 5), at=st.integers(1, 5))
def test_what_goes_wrong_in_the_feed_comes_out_as_itself(error: BaseException, count: int, at: int) -> None:
    feed, gpu = FakeFeed([3] * count, at=min(at, count), failure=error), FakeGpu()
    staging = started(gpu, feed)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            exhaust(staging)
        assert caught.value is error
    staging.close()
    assert (gpu.given_back, feed.closed) == (True, True)


@given(count=st.integers(3, 6), at=st.integers(1, 5), other=st.sampled_from([1, 3, 5, 9]))
def test_a_batch_of_another_size_in_between_is_named(count: int, at: int, other: int) -> None:
    at = min(at, count - 2)
    lengths = [4] * count
    lengths[at] = other
    feed, gpu = FakeFeed(lengths), FakeGpu()
    staging = started(gpu, feed)
    with pytest.raises(
        DataError, match=rf"batch {at + 1} \(part {at}\.0 …\) holds {other} samples, but the first one 4"
    ):
        exhaust(staging)
    staging.close()
    assert (gpu.given_back, feed.closed) == (True, True)


def test_a_longer_last_batch_is_named() -> None:
    staging = started(FakeGpu(), FakeFeed([4, 4, 5]))
    with pytest.raises(DataError, match=r"batch 3 \(part 2\.0 …\) holds 5 samples"):
        exhaust(staging)
    staging.close()


def test_a_batch_of_another_shape_is_named_with_its_input() -> None:
    feed, gpu = FakeFeed([4, 4, 4]), FakeGpu()
    odd = {**feed.portions[1].batch, "image": np.zeros((4, 2, 4), np.float32)}
    feed.portions[1] = Portion(odd, feed.portions[1].names, 8)
    staging = started(gpu, feed)
    with pytest.raises(DataError, match=r"batch 2 \(part 1\.0 …\), input 'image' has shape \[4, 2, 4\]"):
        exhaust(staging)
    staging.close()
    assert gpu.given_back


@pytest.mark.parametrize("change", ["lacks", "adds", "renames"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_batch_of_other_inputs_is_named(change: str, at: int) -> None:
    feed, gpu = FakeFeed([4, 4, 4]), FakeGpu()
    batch = dict(feed.portions[at].batch)
    ids = batch["ids"] if change == "adds" else batch.pop("ids")
    if change != "lacks":
        batch["more"] = ids
    feed.portions[at] = Portion(batch, feed.portions[at].names, 4 * at + 4)
    staging = started(gpu, feed)
    told = rf"batch {at + 1} \(part {at}\.0 …\) has inputs {', '.join(batch)}, but the first batch image, ids, weights"
    with pytest.raises(DataError, match=told):
        exhaust(staging)
    assert staging.seen.staged == at
    staging.close()
    assert (gpu.given_back, feed.closed) == (True, True)


@pytest.mark.parametrize("batches", [0, 0.9, 1, 1.9])
def test_a_gpu_without_room_says_so_and_keeps_nothing(batches: float) -> None:
    feed = FakeFeed([4, 4])
    gpu = FakeGpu(room=int(batches * feed.bytes))
    portions = feed()
    staging = Staging(gpu, portions)
    with pytest.raises(BackendError):
        staging.start(next(portions))
    staging.close()
    assert gpu.given_back


@pytest.mark.parametrize(
    "pins",
    [
        0,
        2,
        3,
        5,
    ],
)
def test_a_machine_without_pinned_memory_keeps_nothing(pins: int) -> None:
    feed, gpu = FakeFeed([4, 4]), FakeGpu(pins=pins)
    portions = feed()
    staging = Staging(gpu, portions)
    with pytest.raises(MemoryError):
        staging.start(next(portions))
    staging.close()
    assert gpu.given_back


def test_close_wakes_whoever_waits_for_a_batch() -> None:
    gpu, go, reached = FakeGpu(), threading.Event(), threading.Event()
    feed = FakeFeed([2, 2])

    def slow() -> Iterator[Portion]:
        yield feed.portions[0]
        reached.set()
        go.wait()
        yield feed.portions[1]

    portions = slow()
    staging = Staging(gpu, portions)
    staging.start(next(portions))
    taker = threading.Thread(target=staging.take)
    taker.start()
    reached.wait()
    closer = threading.Thread(target=staging.close)
    closer.start()
    wait_for(lambda: staging._closing)
    go.set()
    closer.join()
    taker.join(1)
    woken = not taker.is_alive()
    staging._ready.put(None)
    taker.join()
    assert woken


@given(samples=st.integers(1, 9), size=st.integers(1, 9))
def test_filling_repeats_the_samples_from_the_first_on(samples: int, size: int) -> None:
    if samples > size:
        return
    room, array = np.full((size, 2), -1), np.arange(2 * samples).reshape(samples, 2)
    copy_filled(room, array, samples, "here", "x")
    assert np.array_equal(room, array[np.arange(size) % samples])


@given(st.lists(st.integers(), min_size=1))
def test_only_the_last_one_is_the_last(numbers: list[int]) -> None:
    found = list(mark_last(numbers[0], iter(numbers[1:])))  # type: ignore[arg-type, var-annotated]
    assert [number for number, _ in found] == numbers
    assert [last for _, last in found] == [False] * (len(numbers) - 1) + [True]


@given(st.permutations(["a", "b", "c"]))
def test_addresses_come_in_the_order_that_is_asked_for(names: list[str]) -> None:
    addresses = {"a": 1, "b": 2, "c": 3}
    assert order_addresses(addresses, names) == [addresses[name] for name in names]
    for wrong in (names[:2], [*names, "d"], ["d", *names[1:]]):
        with pytest.raises(DataError, match="TensorRT asks for inputs"):
            order_addresses(addresses, wrong)
