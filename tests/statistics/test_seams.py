"""Parts of a sequence of batches, counted alone and joined: the histogram of the whole sequence, in tensorrt mode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ldexp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit import kernel
from quantkit.artifact import sha256_of
from quantkit.calibration.from_statistics import tables_from
from quantkit.errors import ShardError, StatisticsError
from quantkit.histogram import BINS, Histogram, HistogramMode
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.statistics import (
    Collector,
    Origin,
    Statistics,
    given_statistics,
    parse_statistics,
    statistics_bytes,
    write_statistics,
)
from quantkit.statistics.collector import SliceExtremes
from quantkit.statistics.file import KEY
from quantkit.statistics.sealed import open_sealed, sealed_bytes
from quantkit.statistics.seams import (
    DISTANCES,
    Seam,
    doublings_between,
    join_histograms,
    on_one_grid,
    start_of_grid,
)

F32 = np.float32
LEAST = ldexp(1.0, -149)


@dataclass(frozen=True)
class Part:
    """The histogram of consecutive batches, and its seam."""

    histogram: Histogram
    seam: Seam


def counted(batches: list[np.ndarray], first: float = 0.0) -> Part:
    """Count batches in tensorrt mode, on the grid of `first` if it is not 0."""
    collector = Collector(["t"], [], HistogramMode.TENSORRT, first_ranges={"t": first})
    for batch in batches:
        assert collector.count("t", batch, whole=True)
        assert collector.end_batch() == ()
    return Part(collector.histograms()["t"], collector.seams()["t"])


def joined(a: Part, b: Part) -> Part:
    return Part(*join_histograms(a.histogram, a.seam, b.histogram, b.seam))


def facts(part: Part) -> tuple[object, ...]:
    h, s = part.histogram, part.seam
    return h.counts.tobytes(), h.range, h.minimum, h.maximum, s.first, s.low.tolist()


def first_range(batches: list[np.ndarray]) -> float:
    return next((float(np.abs(b).max()) for b in batches if b.any()), 0.0)


@st.composite
def sequences(draw: st.DrawFn) -> list[np.ndarray]:
    """Batches whose values crowd at R·2^k and at the edges of bins under every R·2^k, from denormal to huge."""
    first = draw(st.floats(LEAST, 2.0**98, width=32) | st.sampled_from([LEAST, 3 * LEAST, 2.0**-126, 1.0, 3.0, 5e-3]))
    steps = st.integers(-14, 14) | st.integers(-150, 100)
    near = st.sampled_from([-1, 0, 0, 0, 0, 1])

    def value(kind: str) -> float:
        if kind == "zero":
            return 0.0
        if kind == "any":
            return draw(st.floats(0.0, 2.0**99, width=32))
        scale = first * 2.0 ** draw(steps)
        if kind == "edge":
            scale *= draw(st.integers(1, BINS)) / BINS
        x = F32(min(scale, 2.0**99))
        move = draw(near)
        return float(np.nextafter(x, F32(np.inf if move > 0 else 0.0))) if move else float(x)

    kinds = st.sampled_from(["range", "range", "range", "edge", "zero", "any"])
    batches = []
    for _ in range(draw(st.integers(1, 8))):
        palette = [value(draw(kinds)) for _ in range(draw(st.integers(1, 4)))]
        if draw(st.integers(0, 4)) == 0:
            palette = [0.0]
        signs = draw(st.lists(st.sampled_from([1, -1]), min_size=len(palette), max_size=len(palette)))
        batches.append(np.repeat(np.array(palette, F32) * np.array(signs, F32), draw(st.integers(1, 3)))[None])
    return batches


@st.composite
def cut_sequences(draw: st.DrawFn) -> list[list[np.ndarray]]:
    """A sequence in parts of consecutive batches."""
    batches = draw(sequences())
    cuts = sorted(draw(st.sets(st.integers(1, max(len(batches) - 1, 1)), max_size=7)) - {len(batches)})
    return [batches[a:b] for a, b in zip([0, *cuts], [*cuts, len(batches)], strict=True)]


def powers(*rows: list[float]) -> list[list[np.ndarray]]:
    """One part for each row of values, a batch for each value."""
    return [[np.array([[x]], F32) for x in row] for row in rows]


ODD = powers([3.0], [6.0, 3.0, 6.0, 5.0], [0.0, 24.0, 12.0, 24.0], [3.0, 24.0, 48.0 * 2**11], [48.0 * 2**12])


@given(parts=cut_sequences(), pick=st.randoms(use_true_random=False))
@example(parts=ODD, pick=None)
@example(parts=powers([0.0], [0.0, LEAST], [LEAST * 2**11], [0.0], [LEAST * 2**12, LEAST]), pick=None)
@example(parts=powers([1.0], [2.0], [4.0], [2.0], [2.0**11], [2.0**12], [2.0**90]), pick=None)
@example(parts=powers([1.0], [2.0**-20], [1.0, 2.0**-20, 1.0], [0.5, 2.0, 1.0]), pick=None)
def test_parts_in_any_grouping_are_the_sequence(parts: list[list[np.ndarray]], pick) -> None:
    """Joining neighbours, whichever first, is what one collector counts over all batches, to the last fact."""
    batches = [batch for part in parts for batch in part]
    first = first_range(batches)
    pieces = [counted(part, first) for part in parts]
    while len(pieces) > 1:
        i = pick.randrange(len(pieces) - 1) if pick else 0
        pieces[i : i + 2] = [joined(*pieces[i : i + 2])]
    assert facts(pieces[0]) == facts(counted(batches))


@given(parts=cut_sequences())
def test_numpy_counts_the_same_parts(parts: list[list[np.ndarray]]) -> None:
    first = first_range([batch for part in parts for batch in part])
    compiled = [facts(counted(part, first)) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantkit.statistics.collector.observe", kernel.numpy_observe)
        assert [facts(counted(part, first)) for part in parts] == compiled


def counted_elsewhere(batches: list[np.ndarray], first: float) -> Part:
    """Count as a GPU does: the collector settles the range of a batch, and the counts under it follow."""
    collector = Collector(["t"], [], HistogramMode.TENSORRT, first_ranges={"t": first})
    for batch in batches:
        low, high, finite = kernel.extremes(batch)
        range_, good = collector.settle("t", SliceExtremes(low, high, finite, batch.size, False), whole=True)
        assert good
        counts = np.zeros(BINS + 1, np.int64)
        kernel.observe(batch, counts, np.array([range_, low, high]), False)
        collector.add("t", counts, range_)
        assert collector.end_batch() == ()
    return Part(collector.histograms()["t"], collector.seams()["t"])


@given(parts=cut_sequences())
def test_counts_from_elsewhere_make_the_same_parts(parts: list[list[np.ndarray]]) -> None:
    first = first_range([batch for part in parts for batch in part])
    assert [facts(counted_elsewhere(part, first)) for part in parts] == [facts(counted(part, first)) for part in parts]


@given(parts=cut_sequences())
def test_parts_that_were_counted_alone_join_where_they_are_on_one_grid(parts: list[list[np.ndarray]]) -> None:
    """A part that was not told the first range either has another grid, or the same result."""
    batches = [batch for part in parts for batch in part]
    first, whole = first_range(batches), counted(batches)
    pieces = [counted(part) for part in parts]
    if all(on_one_grid(piece.histogram.range, first) for piece in pieces):
        while len(pieces) > 1:
            pieces[:2] = [joined(*pieces[:2])]
        assert facts(pieces[0]) == facts(whole)


@given(batches=sequences())
def test_values_one_bin_low_are_where_the_seam_says(batches: list[np.ndarray]) -> None:
    """Put where they belong, every value is in the bin of its own: floor(|x|·2048/R), one above the last for R."""
    part = counted(batches)
    range_, low = part.histogram.range, part.seam.low
    counts = np.append(part.histogram.counts, 0)
    for distance in range(DISTANCES):
        own = BINS >> distance
        counts[own - 1] -= low[distance]
        counts[own] += low[distance]
    values = np.abs(np.concatenate([b.ravel() for b in batches]).astype(np.float64))
    bins = np.floor(values * BINS / range_).astype(int) if range_ else np.zeros(values.size, int)
    assert counts.tolist() == np.bincount(bins, minlength=BINS + 1).tolist()
    for distance in range(DISTANCES):
        assert low[distance] <= (values == ldexp(range_, -distance)).sum()


@given(first=st.floats(LEAST, 2.0**100, width=32), x=st.floats(LEAST, 2.0**100, width=32))
def test_a_grid_begins_below_every_float(first: float, x: float) -> None:
    start = start_of_grid(first)
    assert 0.0 < start < LEAST
    assert on_one_grid(start, first)
    assert ldexp(start, doublings_between(start, first)) == first
    grown = kernel.grow_range(start, x, invariant=False)
    assert grown / 2 < x <= grown
    assert on_one_grid(grown, first)


def test_the_slices_of_a_batch_change_nothing_on_a_grid() -> None:
    """A batch in slices needs no second reading where the first range is known."""
    batch = np.array([[1.5], [3.0], [6.0], [6.0], [0.0]], F32)
    collector = Collector(["t"], [], HistogramMode.TENSORRT, first_ranges={"t": 3.0})
    assert not collector.unsettled
    for row in batch:
        assert collector.count("t", row[None], whole=False)
    assert collector.end_batch() == ()
    assert facts(Part(collector.histograms()["t"], collector.seams()["t"])) == facts(counted([batch], 3.0))


@given(batches=sequences(), at=st.integers(0, 7))
def test_a_checkpoint_keeps_the_seam(batches: list[np.ndarray], at: int) -> None:
    one, other = (Collector(["t"], [], HistogramMode.TENSORRT) for _ in range(2))
    for number, batch in enumerate(batches):
        one.count("t", batch, whole=True)
        one.end_batch()
        if number == at:
            other.load(one.dump())
            one = other
    assert facts(Part(one.histograms()["t"], one.seams()["t"])) == facts(counted(batches))


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────────

CHAIN = b"a digest|"


def shard(order: str = sha256_of(CHAIN)) -> Statistics:
    """A shard with a value one bin low, at R and at R/2, and a tensor that is zero."""
    collector = Collector(["t", "zero"], [], HistogramMode.TENSORRT)
    for values in ([3.0, 3.0], [6.0], [1.0]):
        collector.count("t", np.array([values], F32), whole=True)
        collector.count("zero", np.zeros((1, 2), F32), whole=True)
        collector.end_batch()
    origin = Origin(
        model="m", data="0" * 64, samples=3, histogram=HistogramMode.TENSORRT, backend="b", slice=0, order=order,
        batch_size=1, batches=3,
    )  # fmt: skip
    record = record_shard(Shard(0, 2), range(3), RunIdentity({}), files="")
    return replace(collector.statistics({}, origin), shard=record, chain=CHAIN, seams=collector.seams())


def test_the_file_of_a_shard_keeps_its_seams() -> None:
    content = statistics_bytes(shard())
    back = parse_statistics(content, "x")
    assert back.seams is not None
    assert {name: (seam.first, seam.low.tolist()) for name, seam in back.seams.items()} == {
        "t": (3.0, [1, 2, *[0] * 10]),
        "zero": (0.0, [0] * 12),
    }
    assert back.chain == CHAIN
    assert statistics_bytes(back) == content


low = np.zeros((2, DISTANCES), np.int64)


@pytest.mark.parametrize(
    "arrays",
    [
        {"seams/low": low.astype(np.int32)},
        {"seams/low": low[:1]},
        {"seams/low": low[:, :-1]},
        {"seams/low": low - 1},
        {"seams/low": low + 1},
        {"seams/low": np.eye(2, DISTANCES, dtype=np.int64) * 2},
        {"seams/firsts": np.array([3.0, 0.0], F32)},
        {"seams/firsts": np.array([3.0])},
        {"seams/firsts": np.array([7.0, 0.0])},
        {"seams/firsts": np.array([0.0, 0.0])},
        {"seams/firsts": np.array([3.0, 1.0])},
        {"seams/firsts": np.array([np.nan, 0.0])},
        {"seams/firsts": np.array([-3.0, 0.0])},
        {"seams/firsts": np.array([1 / 3, 0.0])},
        {"ranges": np.array([[12.0, 1.0, 6.0], [0.0, 0.0, 0.0]])},
        {"chain": np.frombuffer(b"another", np.uint8)},
        {"chain": np.frombuffer(CHAIN, np.int8)},
        {"seams/firsts": None},
        {"seams/low": None},
        {"chain": None},
    ],
    ids=lambda arrays: " ".join(f"{name} {a if a is None else a.tolist()}"[:50] for name, a in arrays.items()),
)
def test_seams_of_another_meaning_are_refused(arrays: dict[str, np.ndarray | None]) -> None:
    file = open_sealed(statistics_bytes(shard()), KEY)
    changed = {name: array for name, array in (file.arrays | arrays).items() if array is not None}
    with pytest.raises(StatisticsError, match="is damaged: "):
        parse_statistics(sealed_bytes(changed, KEY, file.text), "x")


def test_a_whole_run_has_no_seams() -> None:
    """They would be of no use, and the bytes of a run would depend on whether it was divided."""
    with pytest.raises(StatisticsError, match="unknown array"):
        parse_statistics(statistics_bytes(replace(shard(), shard=None)), "x")


def test_one_shard_is_not_taken_for_the_run(tmp_path: Path) -> None:
    """Tables and scales of a part of the data would look like those of all of it."""
    path = tmp_path / "0000-of-0002.stats.safetensors"
    write_statistics(shard(), path)
    for part in (path, str(path), shard()):
        with pytest.raises(ShardError, match=r"one shard \(0/2\) is not the whole run"):
            given_statistics(part)
        with pytest.raises(ShardError, match="not the whole run"):
            tables_from(part, "minmax")
    assert given_statistics(replace(shard(), shard=None)).shard is None
