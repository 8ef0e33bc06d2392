"""What a calibrator hands out, what it keeps of errors, and when a table counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.calibration.tensorrt.batch_source import BatchSource, CalibratorOutcome
from quantkit.errors import BackendError, DataError
from tests.support.fake_gpu import FakeFeed, FakeGpu, filled

NAMES = ("image", "ids", "weights")
TABLE = b"TRT-8601-EntropyCalibration2\nimage: 3c010204\n"
ERRORS = [ValueError("here"), KeyboardInterrupt(), SystemExit(3), DataError("bad", remedy="mend it")]


def calibrated(
    streaming: BatchSource, names: tuple[str, ...] = NAMES, table: bytes | None = TABLE
) -> CalibratorOutcome:
    """As TensorRT does it: batches until there are none, then the table, made of whatever came."""
    while streaming.batch(names) is not None:
        pass
    if table is not None:
        streaming.write(table)
    return streaming.outcome()


def raised(streaming: BatchSource, **how: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        calibrated(streaming, **how)
    return caught.value


@given(
    late=st.booleans(),
    count=st.integers(1, 7),
    size=st.integers(1, 5),
    last=st.integers(1, 5),
    names=st.permutations(NAMES),
)
def test_batches_come_in_order_and_under_the_names_that_are_asked_for(
    late: bool, count: int, size: int, last: int, names: list[str]
) -> None:
    last = min(last, size) if count > 1 else size
    feed, gpu = FakeFeed([size] * (count - 1) + [last]), FakeGpu(late=late)
    streaming = BatchSource(lambda: gpu, feed)
    for portion in feed.portions:
        addresses = streaming.batch(names)
        assert addresses is not None
        assert streaming.device_bytes == gpu.held == 2 * feed.bytes
        for name, address in zip(names, addresses, strict=True):
            wanted = filled(portion.batch[name], portion, size)
            assert (gpu.read(address, wanted) == wanted).all(), name
        assert not streaming.over
    assert streaming.batch(names) is None
    assert streaming.batch(names) is None
    assert (gpu.given_back, feed.closed) == (True, True)
    streaming.write(TABLE)
    assert streaming.over
    outcome = streaming.outcome()
    assert (outcome.table, outcome.calls, outcome.reused) == (TABLE, count + 2, False)
    assert (outcome.seen.taken, outcome.seen.samples) == (count, size * (count - 1) + last)
    assert outcome.seen.repeated == size - last
    assert gpu.peak == 2 * feed.bytes


@pytest.mark.parametrize("error", ERRORS)
@given(late=st.booleans(), count=st.integers(1, 5), at=st.integers(0, 5))
def test_what_goes_wrong_in_the_data_comes_out_as_itself(error: BaseException, late: bool, count: int, at: int) -> None:
    feed, gpu = FakeFeed([3] * count, at=min(at, count), failure=error), FakeGpu(late=late)
    streaming = BatchSource(lambda: gpu, feed)
    assert raised(streaming) is error
    assert (gpu.given_back, feed.closed) == (True, True)
    assert streaming.over
    assert streaming.batch(NAMES) is None
    streaming.write(TABLE)
    with pytest.raises(type(error)) as caught:
        streaming.outcome()
    assert caught.value is error


def failing_at(number: int, error: BaseException) -> Callable[..., Any]:
    calls = iter(range(1000))

    def callback(*_: object) -> None:
        if next(calls) == number:
            raise error

    return callback


@pytest.mark.parametrize("where", ["advance", "stopped"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("number", [0, 1, 4])
def test_what_goes_wrong_in_a_callback_comes_out_as_itself(where: str, error: BaseException, number: int) -> None:
    feed, gpu = FakeFeed([2] * 5), FakeGpu()
    assert raised(BatchSource(lambda: gpu, feed, **{where: failing_at(number, error)})) is error
    assert gpu.given_back


@pytest.mark.parametrize("number", [0, 2, 5])
def test_who_is_stopped_raises_what_stopped_it(number: int) -> None:
    feed, gpu, error = FakeFeed([2] * 5), FakeGpu(), KeyboardInterrupt()
    asked = iter(range(100))
    streaming = BatchSource(lambda: gpu, feed, stopped=lambda: error if next(asked) == number else None)
    assert raised(streaming) is error
    assert gpu.given_back
    assert streaming.seen.taken == number


def test_data_and_gpu_that_do_not_open_come_out_as_themselves() -> None:
    error = OSError("gone")

    def broken() -> Any:
        raise error

    assert raised(BatchSource(FakeGpu, broken)) is error
    assert raised(BatchSource(broken, FakeFeed([2]))) is error
    full = FakeGpu(room=10)
    assert isinstance(raised(BatchSource(lambda: full, FakeFeed([2]))), BackendError)
    assert full.given_back


def test_data_that_was_opened_is_closed_where_the_gpu_is_missing() -> None:
    feed = FakeFeed([2, 2])

    def broken() -> Any:
        raise BackendError("no GPU", remedy="buy one")

    error = raised(BatchSource(broken, feed))
    assert feed.closed
    del error


def test_no_data_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        calibrated(BatchSource(FakeGpu, lambda: iter(())))


@pytest.mark.parametrize("names", [("image", "ids"), ("image", "ids", "x"), (*NAMES, "x")])
def test_inputs_that_the_data_lacks_are_refused(names: tuple[str, ...]) -> None:
    gpu = FakeGpu()
    streaming = BatchSource(lambda: gpu, FakeFeed([2, 2]))
    with pytest.raises(DataError, match="TensorRT asks for inputs"):
        calibrated(streaming, names)
    assert gpu.buffers == 0


def test_other_names_later_on_are_refused_too() -> None:
    gpu = FakeGpu()
    streaming = BatchSource(lambda: gpu, FakeFeed([2, 2]))
    assert streaming.batch(NAMES)
    assert streaming.batch(("image", "ids", "x")) is None
    assert gpu.given_back
    with pytest.raises(DataError):
        streaming.outcome()


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_table_before_the_data_is_through_is_refused(taken: int) -> None:
    gpu = FakeGpu()
    streaming = BatchSource(lambda: gpu, FakeFeed([2, 2]))
    for _ in range(taken):
        streaming.batch(NAMES)
    streaming.write(TABLE)
    assert streaming.over
    with pytest.raises(BackendError, match=f"after {taken} batches"):
        streaming.outcome()
    assert gpu.given_back


def test_no_table_is_an_error() -> None:
    with pytest.raises(BackendError, match="no calibration table"):
        calibrated(BatchSource(FakeGpu, FakeFeed([2, 2])), table=None)


def test_a_table_that_is_there_is_read_and_nothing_else_happens() -> None:
    gpu, feed = FakeGpu(), FakeFeed([2, 2])
    streaming = BatchSource(lambda: gpu, feed, TABLE)
    assert streaming.read() == TABLE
    streaming.write(TABLE + b"more")
    outcome = streaming.outcome()
    assert (outcome.table, outcome.calls, outcome.reused, outcome.seen.samples) == (TABLE, 0, True, 0)
    assert gpu.buffers == 0
    assert BatchSource(FakeGpu, feed).read() is None


def test_a_table_that_tensorrt_does_not_take_is_an_error() -> None:
    streaming = BatchSource(FakeGpu, FakeFeed([2, 2]), TABLE)
    with pytest.raises(BackendError, match=r"did not accept the table: it asked for 3 batches"):
        calibrated(streaming)


def test_the_first_failure_is_the_one_that_counts() -> None:
    streaming = BatchSource(FakeGpu, FakeFeed([2, 2]))
    first, second = ValueError(), ValueError()
    streaming.fail(first)
    streaming.fail(second)
    assert streaming.batch(NAMES) is None
    with pytest.raises(ValueError, match=r"^$") as caught:
        streaming.outcome()
    assert caught.value is first


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_early_gives_everything_back(taken: int) -> None:
    gpu, feed = FakeGpu(), FakeFeed([2] * 6)
    streaming = BatchSource(lambda: gpu, feed)
    for _ in range(taken):
        streaming.batch(NAMES)
    streaming.close()
    streaming.close()
    assert (gpu.given_back, feed.closed) == (True, taken > 0)


def test_one_thread_builds_and_another_closes() -> None:
    for _ in range(20):
        gpu, feed = FakeGpu(), FakeFeed([2] * 6)
        streaming = BatchSource(lambda gpu=gpu: gpu, feed)  # type: ignore[misc]
        got: list[object] = []
        thread = threading.Thread(target=lambda s=streaming, g=got: g.extend(iter(lambda: s.batch(NAMES), None)))
        thread.start()
        thread.join()
        closers = [threading.Thread(target=streaming.close) for _ in range(2)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        assert (len(got), gpu.given_back, feed.closed) == (6, True, True)


def test_two_close_while_the_data_is_read() -> None:
    """After the second Ctrl-C: the build's thread, which nobody waits for any more, and the one that leaves."""
    gpu, feed = FakeGpu(), FakeFeed([2, 2])
    go, reached = threading.Event(), threading.Event()

    def slow() -> Iterator[Any]:
        yield feed.portions[0]
        reached.set()
        go.wait()
        yield feed.portions[1]

    streaming = BatchSource(lambda: gpu, slow)
    taker = threading.Thread(target=streaming.batch, args=(NAMES,))
    taker.start()
    reached.wait()
    first = threading.Thread(target=streaming.close)
    first.start()
    while streaming._staging is not None:
        time.sleep(0.001)
    threading.Timer(0.1, go.set).start()
    try:
        streaming.close()
    finally:
        go.set()
        first.join()
        taker.join()
    assert gpu.given_back


@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 4, 1], [4]])
def test_progress_adds_up_to_the_samples(lengths: list[int]) -> None:
    told: list[int] = []
    calibrated(BatchSource(FakeGpu, FakeFeed(lengths), advance=told.append))
    assert told == lengths


def test_the_first_batch_can_be_looked_at_and_is_not_read_twice() -> None:
    gpu, feed = FakeGpu(), FakeFeed([2, 2, 1])
    streaming = BatchSource(lambda: gpu, feed)
    assert streaming.first() is streaming.first() is feed.portions[0]
    assert (gpu.buffers, streaming.calls, streaming.seen.taken) == (0, 0, 0)
    outcome = calibrated(streaming)
    assert (outcome.seen.taken, outcome.seen.samples, outcome.calls) == (3, 5, 4)
    assert (gpu.given_back, feed.closed) == (True, True)


def test_a_first_batch_that_nobody_takes_is_given_back() -> None:
    feed = FakeFeed([2, 2])
    streaming = BatchSource(FakeGpu, feed)
    streaming.first()
    streaming.close()
    assert feed.closed


def test_a_first_batch_that_cannot_be_read_raises_where_it_is_looked_at() -> None:
    error = ValueError("bad sample")
    with pytest.raises(ValueError, match="bad sample") as caught:
        BatchSource(FakeGpu, FakeFeed([2], at=0, failure=error)).first()
    assert caught.value is error
    with pytest.raises(DataError, match="no samples"):
        BatchSource(FakeGpu, lambda: iter(())).first()


def test_the_data_is_opened_once_and_not_before_it_is_wanted() -> None:
    opened: list[int] = []

    def portions() -> Iterator[Any]:
        opened.append(1)
        yield from FakeFeed([2, 2])()

    streaming = BatchSource(FakeGpu, portions)
    assert not opened
    calibrated(streaming)
    assert len(opened) == 1
