"""The statistics file: there and back, the same bytes for the same content, damage; and merging parts exactly."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from quantkit.errors import StatisticsError
from quantkit.histogram import HistogramMode
from quantkit.statistics import (
    Collector,
    Origin,
    Statistics,
    merge_statistics,
    read_statistics,
    statistics_bytes,
    write_statistics,
)
from quantkit.statistics.sealed import SEAL, sealed_bytes

F32 = np.float32
INVARIANT, TENSORRT = HistogramMode.INVARIANT, HistogramMode.TENSORRT
LAYOUTS = {"image": (3, 5), "rows": (7, 3), "vector": (3,)}
VIEWS = [("image", 1), ("rows", -1), ("vector", 1), ("rows", 1)]
Data = dict[str, np.ndarray]


@st.composite
def data_sets(draw: st.DrawFn, least: int = 1) -> Data:
    """Samples of three tensors: channels first, channels last, and one value per channel."""
    count, rng = draw(st.integers(least, 8)), np.random.default_rng(draw(st.integers(0, 2**32)))
    finite = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0])  # below ABSURD
    if draw(st.booleans()):
        palette = np.array(draw(st.lists(finite, min_size=1, max_size=6)), F32)
        return {name: rng.choice(palette, (count, *shape)) for name, shape in LAYOUTS.items()}
    spread = rng.integers(-30, 30, count)
    return {name: (rng.normal(size=(count, *shape)).T * 2.0**spread).T.astype(F32) for name, shape in LAYOUTS.items()}


def part_of(data: Data, samples: Sequence[int]) -> Data:
    return {name: values[list(samples)] for name, values in data.items()}


def origin_of(data: Data, mode: HistogramMode = INVARIANT, **fields: Any) -> Origin:
    samples = len(data["image"])
    digests = [hashlib.sha256(b"".join(x[i].tobytes() for x in data.values())).digest() for i in range(samples)]
    total = sum(int.from_bytes(d, "big") for d in digests) % 2**256
    known = {"model": "m", "preprocess": {"scale": 0.5, "mean": [0, 1]}, "backend": "b", "slice": 4}
    return Origin(**known | {"data": f"{total:064x}", "samples": samples, "histogram": mode} | fields)


def statistics_of(batches: Sequence[Sequence[Data]], whole: Data, mode: HistogramMode = INVARIANT) -> Statistics:
    """The statistics of `whole`, which arrives in batches, each in slices."""
    collector = Collector(list(LAYOUTS), VIEWS, mode)
    for slices in batches:
        for part, name in itertools.product(slices, LAYOUTS):
            assert collector.count(name, part[name], whole=len(slices) == 1)
        for part, name in itertools.product(slices, collector.end_batch()):
            collector.recount(name, part[name])
        collector.end_batch()
    return collector.statistics({"rows": "image"}, origin_of(whole, mode))


def simple(data: Data, mode: HistogramMode = INVARIANT) -> Statistics:
    return statistics_of([[data]], data, mode)


def fixed_data(seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(4, *shape)).astype(F32) for name, shape in LAYOUTS.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statistics") / "x.stats.safetensors"


def read_back(path: Path, content: bytes) -> Statistics:
    path.write_bytes(content)
    return read_statistics(path)


# ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", HistogramMode)
@given(data=data_sets())
def test_statistics_are_read_as_they_were_written(path: Path, mode: HistogramMode, data: Data) -> None:
    written = simple(data, mode)
    write_statistics(written, path)
    read = read_statistics(path)
    assert path.read_bytes() == statistics_bytes(written) == statistics_bytes(read)
    assert list(read.histograms) == list(written.histograms) == list(LAYOUTS)
    assert (read.origin, read.shared, len(read)) == (written.origin, written.shared, 3)
    for name, h in written.histograms.items():
        back = read.histograms[name]
        assert (back.counts.tolist(), back.range, back.minimum, back.maximum) == (
            h.counts.tolist(), h.range, h.minimum, h.maximum,
        )  # fmt: skip
    for ours, theirs in zip(read.channels, written.channels, strict=True):
        assert (ours.tensor, ours.axis, ours.elements) == (theirs.tensor, theirs.axis, theirs.elements)
        assert ours.mean.tolist() == theirs.mean.tolist()


@given(names=st.lists(st.text(min_size=1), unique=True, max_size=4), order=st.text() | st.none())
def test_names_and_origin_may_hold_any_text(path: Path, names: list[str], order: str | None) -> None:
    collector = Collector(names, [(name, 0) for name in names], INVARIANT)
    for name in names:
        collector.count(name, np.ones((1, 2), F32), whole=True)
    origin = origin_of(fixed_data(), order=order, model="".join(names), preprocess={name: name for name in names})
    written = collector.statistics({name: name for name in names}, origin)
    read = read_back(path, statistics_bytes(written))
    assert list(read.histograms) == names
    assert read.origin == origin
    assert statistics_bytes(read) == statistics_bytes(written)


def test_optional_fields_are_kept(path: Path) -> None:
    written = simple(fixed_data(), TENSORRT)
    origin = written.origin.model_copy(
        update={"preprocess": None, "order": "ab", "batch_size": 2, "batches": 7, "slice": 1}
    )
    assert read_back(path, statistics_bytes(dataclasses.replace(written, origin=origin))).origin == origin


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = statistics_bytes(simple(fixed_data()))
HEADER_END = 8 + struct.unpack("<Q", WHOLE[:8])[0]


def damaged(arrays: dict[str, np.ndarray] | None = None, **fields: object) -> bytes:
    """A statistics file with other arrays or other metadata."""
    header = json.loads(WHOLE[8:HEADER_END])
    document = json.loads(header["__metadata__"]["quantkit"]) | fields
    return sealed_bytes(without_seal() | (arrays or {}), "quantkit", json.dumps(document))


def without_seal() -> dict[str, np.ndarray]:
    """The arrays of a statistics file."""
    return {name: array for name, array in load(WHOLE).items() if name != SEAL}


def without(key: str, inside: str | None = None) -> bytes:
    header = json.loads(WHOLE[8:HEADER_END])
    document = json.loads(header["__metadata__"]["quantkit"])
    del (document[inside] if inside else document)[key]
    return sealed_bytes(without_seal(), "quantkit", json.dumps(document))


@given(length=st.integers(0, len(WHOLE) - 1) | st.integers(0, HEADER_END))
@example(length=0)
@example(length=len(WHOLE) - 1)
def test_a_file_that_was_cut_is_refused(path: Path, length: int) -> None:
    with pytest.raises(StatisticsError, match="is not a statistics file, or is damaged"):
        read_back(path, WHOLE[:length])


@given(at=st.integers(0, len(WHOLE) - 1) | st.integers(0, HEADER_END + 100), mask=st.integers(1, 255))
def test_a_changed_byte_is_refused(path: Path, at: int, mask: int) -> None:
    content = bytearray(WHOLE)
    content[at] ^= mask
    with pytest.raises(StatisticsError):
        read_back(path, bytes(content))


def test_a_file_of_version_0_1_is_read_without_a_digest(path: Path) -> None:
    header = json.loads(WHOLE[8:HEADER_END])
    read = read_back(path, save(without_seal(), metadata=header["__metadata__"]))
    assert statistics_bytes(read) == WHOLE


@given(content=st.binary(max_size=200))
def test_other_bytes_are_refused(path: Path, content: bytes) -> None:
    for bytes_ in (content, struct.pack("<Q", len(content)) + content):
        with pytest.raises(StatisticsError):
            read_back(path, bytes_)


counts, sums, range_ = np.zeros(2048, np.int64), np.zeros((3, 2, 4), np.int64), np.zeros((3, 2), F32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"counts/image": counts.astype(np.int32)},
        {"counts/image": counts.astype(np.float64)},
        {"counts/image": counts[:-1]},
        {"counts/image": counts.reshape(2, -1)},
        {"ranges": np.zeros((3, 3), F32)},
        {"ranges": np.zeros((2, 3))},
        {"ranges": np.zeros(())},
        {"channels/0/range": range_.astype(np.float64)},
        {"channels/0/range": range_[:2]},
        {"channels/0/range": np.zeros((), F32)},
        {"channels/0/sums": sums.astype(np.float64)},
        {"channels/0/sums": sums[..., :3]},
        {"channels/0/sums": np.zeros((), np.int64)},
        {"counts/image": counts - 1},
        {"counts/image": counts},
        {"counts/image": counts + (1 << 62)},
        {"ranges": np.full((3, 3), np.nan)},
        {"ranges": np.full((3, 3), -1.0)},
        {"ranges": np.full((3, 3), np.inf)},
        {"ranges": np.tile([1e-320, 0.0, 0.0], (3, 1))},
        {"ranges": np.tile([1e300, 0.0, 0.0], (3, 1))},
        {"ranges": np.tile([1.0, -2.0, 0.5], (3, 1))},
        {"ranges": np.tile([1.0, -1e300, 0.5], (3, 1))},
        {"ranges": np.tile([3.0, 0.0, 2.5], (3, 1))},
        {"ranges": np.tile([8.0, 0.0, 2.5], (3, 1))},
        {"ranges": np.tile([1.0, 0.1, 0.5], (3, 1))},
        {"channels/0/range": range_ + 1},
        {"channels/0/range": np.full((3, 2), np.nan, F32)},
        {"channels/0/sums": sums + (1 << 40)},
        {"channels/0/sums": sums - 11},
        {"channels/0/sums": sums + (1 << 62)},
        {"channels/0/sums": np.zeros((0, 2, 4), np.int64), "channels/0/range": np.zeros((0, 2), F32)},
        {"channels/9/sums": sums},
        {"other": sums},
        {"samples": np.array([3, 1], np.uint64)},
        {"samples": np.array([1.5])},
        {"samples": np.array([[1]], np.uint64)},
    ],
    ids=lambda arrays: " ".join(f"{name} {a.dtype} {list(a.shape)}" for name, a in arrays.items()),
)
def test_arrays_of_another_type_shape_or_meaning_are_refused(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(StatisticsError, match="is damaged: "):
        read_back(path, damaged(arrays))


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 0}, {"format": 2}, {"format": None}, {"format": "1"},
        {"tensors": None}, {"tensors": ["image"]}, {"tensors": ["image", "rows", "absent"]}, {"tensors": [1, 2, 3]},
        {"shared": None}, {"shared": []}, {"shared": ["ab"]}, {"shared": {"rows": 1}}, {"shared": {"rows": "absent"}},
        {"channels": None}, {"channels": [1]}, {"channels": [{"tensor": "image"}]},
        {"channels": [{"tensor": "image", "axis": "1", "elements": 1}]},
        {"channels": [{"tensor": "image", "axis": 1, "elements": None}]},
        {"channels": [{"tensor": "image", "axis": 1, "elements": 0}] * 4},
        {"channels": [{"tensor": "image", "axis": 1 << 40, "elements": 20}] * 4},
        {"origin": None}, {"origin": {}}, {"origin": []}, {"origin": {"model": 1}},
    ],
    ids=repr,
)  # fmt: skip
def test_metadata_of_another_meaning_is_refused(path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(StatisticsError):
        read_back(path, damaged(**fields))


@pytest.mark.parametrize(
    "field",
    [
        ("slice", "4"),
        ("slice", -1),
        ("samples", 1.5),
        ("samples", 0),
        ("samples", -4),
        ("samples", 1 << 62),
        ("histogram", "x"),
        ("more", 1),
        ("data", "no hex"),
        ("data", ""),
        ("data", "ab"),
        ("data", "AB" * 32),
        ("batch_size", 0),
        ("batches", -1),
        ("preprocess", 5),
    ],
    ids=repr,
)
def test_an_origin_of_another_meaning_is_refused(path: Path, field: tuple[str, object]) -> None:
    origin = json.loads(simple(fixed_data()).origin.model_dump_json()) | dict([field])
    with pytest.raises(StatisticsError, match="is damaged"):
        read_back(path, damaged(origin=origin))


@pytest.mark.parametrize("key", ["format", "tensors", "shared", "channels", "origin"])
def test_missing_metadata_is_refused(path: Path, key: str) -> None:
    with pytest.raises(StatisticsError):
        read_back(path, without(key))
    if key == "origin":
        for field in ("model", "data", "samples", "histogram", "backend", "slice"):
            with pytest.raises(StatisticsError, match="is damaged"):
                read_back(path, without(field, inside="origin"))


@pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}, {"quantkit": ""}, {"quantkit": "{"}])
@pytest.mark.parametrize("arrays", [{}, {"weight": np.ones(3)}])
def test_another_safetensors_file_is_refused(path: Path, metadata: Any, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(StatisticsError, match="is not a statistics file"):
        read_back(path, save(arrays, metadata=metadata))


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "[" * 100_000], ids=lambda text: text[:4])
def test_metadata_that_is_no_object_is_refused(path: Path, text: str) -> None:
    with pytest.raises(StatisticsError, match="is not a statistics file"):
        read_back(path, save(load(WHOLE), metadata={"quantkit": text}))


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "BOOL"])
def test_a_type_that_numpy_may_not_know_is_refused(path: Path, dtype: str) -> None:
    header = json.loads(WHOLE[8:HEADER_END])
    size = {"BF16": 2}.get(dtype, 1)
    header["counts/image"] |= {"dtype": dtype, "shape": [2048 * 8 // size]}
    text = json.dumps(header).encode()
    with pytest.raises(StatisticsError):
        read_back(path, struct.pack("<Q", len(text)) + text + WHOLE[HEADER_END:])


def test_a_file_that_is_not_there_is_a_statistics_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(StatisticsError):
            read_statistics(path)


# ── invariance and merging ──────────────────────────────────────────────────────────────────────────────────────────


def divided(draw: st.DrawFn, samples: Sequence[int]) -> list[list[int]]:
    """`samples` in consecutive parts."""
    cuts = sorted(draw(st.sets(st.integers(1, len(samples) - 1)))) if len(samples) > 1 else []
    return [list(samples[a:b]) for a, b in itertools.pairwise([0, *cuts, len(samples)])]


@given(data=st.data(), whole=data_sets())
@example(
    data=None, whole={name: np.stack([np.full(s, 0.0, F32), np.full(s, -0.0, F32)]) for name, s in LAYOUTS.items()}
)
def test_invariant_statistics_are_the_same_bytes_however_the_samples_came(
    data: st.DataObject | None, whole: Data
) -> None:
    samples = range(len(whole["image"]))
    if data is None:
        batches = [[[i]] for i in reversed(samples)]
    else:
        order = data.draw(st.permutations(samples))
        batches = [divided(data.draw, batch) for batch in divided(data.draw, order)]
    arriving = [[part_of(whole, part) for part in batch] for batch in batches]
    assert statistics_bytes(statistics_of(arriving, whole)) == statistics_bytes(simple(whole))


@given(data=st.data(), whole=data_sets(least=2))
def test_merged_shards_are_the_bytes_of_the_whole(data: st.DataObject, whole: Data) -> None:
    order = data.draw(st.permutations(range(len(whole["image"]))))
    shards = [simple(part_of(whole, part)) for part in divided(data.draw, order)]
    # A data set may hold a sample twice.
    assert statistics_bytes(merge_statistics(shards, allow_duplicates=True)) == statistics_bytes(simple(whole))
    if len({s.origin.data for s in shards}) == len(shards):
        assert statistics_bytes(merge_statistics(shards)) == statistics_bytes(simple(whole))


@given(a=data_sets(), b=data_sets(), c=data_sets())
@example(a=fixed_data(1), b=fixed_data(2), c=fixed_data(3))
def test_merging_is_commutative_and_associative(a: Data, b: Data, c: Data) -> None:
    x, y, z = map(simple, (a, b, c))
    if len({s.origin.data for s in (x, y, z)}) < 3:
        return
    at_once = statistics_bytes(merge_statistics([x, y, z]))
    for order in itertools.permutations([x, y, z]):
        assert statistics_bytes(merge_statistics(order)) == at_once
    assert statistics_bytes(merge_statistics([merge_statistics([x, y]), z])) == at_once
    assert statistics_bytes(merge_statistics([x, merge_statistics([y, z])])) == at_once


def test_one_part_alone_is_the_whole() -> None:
    alone = simple(fixed_data())
    assert statistics_bytes(merge_statistics([alone])) == statistics_bytes(alone)


A, B = simple(fixed_data(1)), simple(fixed_data(2))


def other(part: Statistics, **fields: object) -> Statistics:
    return dataclasses.replace(part, origin=part.origin.model_copy(update=fields))


@pytest.mark.parametrize("field", [{"model": "x"}, {"preprocess": None}, {"backend": "x"}, {"slice": 5}])
def test_parts_of_different_runs_are_not_merged(field: dict[str, object]) -> None:
    with pytest.raises(StatisticsError, match=f"differ in {next(iter(field))}"):
        merge_statistics([A, other(B, **field)])


@pytest.mark.parametrize("parts", [[A, A], [A, B, A], [B, simple(fixed_data(2))]])
def test_the_same_part_twice_is_not_merged(parts: list[Statistics]) -> None:
    with pytest.raises(StatisticsError, match="twice"):
        merge_statistics(parts)


def numbered(part: Statistics, *samples: int) -> Statistics:
    """Statistics that know their samples."""
    return dataclasses.replace(part, samples=np.array(samples, np.uint64))


def test_samples_that_are_in_a_merged_file_are_not_counted_again(path: Path) -> None:
    a, b, c = numbered(A, 1, 5), numbered(B, 2, 2, 9), numbered(simple(fixed_data(3)), 4)
    both = merge_statistics([a, b])
    assert both.samples is not None
    assert both.samples.tolist() == [1, 2, 2, 5, 9]
    assert statistics_bytes(merge_statistics([b, a])) == statistics_bytes(both)
    both = read_back(path, statistics_bytes(both))
    for parts in ([both, b], [a, both], [both, merge_statistics([b, c])], [both, numbered(other(B, data="0" * 64), 9)]):
        with pytest.raises(StatisticsError, match="samples in common") as refusal:
            merge_statistics(parts)
        assert "count twice" in str(refusal.value)
        assert "--allow-duplicates" in refusal.value.remedy
    assert merge_statistics([both, c]).origin.samples == 12
    again = merge_statistics([both, b], allow_duplicates=True)
    assert again.samples is not None
    assert again.samples.tolist() == [1, 2, 2, 2, 2, 5, 9, 9]
    assert again.origin.samples == both.origin.samples + b.origin.samples


def test_common_samples_are_counted_and_the_parts_that_hold_them_are_named() -> None:
    parts = [numbered(A, 1, 5), numbered(simple(fixed_data(3)), 4), numbered(B, 2, 5, 9)]
    with pytest.raises(StatisticsError, match=r"^a and c have 1 of 5 samples in common"):
        merge_statistics(parts, names=["a", "b", "c"])
    with pytest.raises(StatisticsError, match="part 1 and part 3 have 1 of 5"):
        merge_statistics(parts)


def test_parts_of_version_0_1_are_merged_as_far_as_they_are_known() -> None:
    merged = merge_statistics([A, numbered(B, 3, 4)])
    assert merged.samples is not None
    assert merged.samples.tolist() == [3, 4]


def test_tensorrt_mode_is_not_merged() -> None:
    with pytest.raises(StatisticsError, match="tensorrt mode cannot be merged"):
        merge_statistics([simple(fixed_data(1), TENSORRT), simple(fixed_data(2), TENSORRT)])
    with pytest.raises(StatisticsError, match="tensorrt mode cannot be merged"):
        merge_statistics([A, simple(fixed_data(2), TENSORRT)])


def test_nothing_is_not_merged() -> None:
    with pytest.raises(StatisticsError, match="nothing to merge"):
        merge_statistics([])


def test_parts_that_watch_different_things_are_not_merged() -> None:
    fewer = {name: h for name, h in B.histograms.items() if name != "rows"}
    with pytest.raises(StatisticsError, match="watch different"):
        merge_statistics([A, dataclasses.replace(B, histograms=fewer)])
    for channels in (B.channels[:1], B.channels[::-1]):
        with pytest.raises(StatisticsError, match="watch different"):
            merge_statistics([A, dataclasses.replace(B, channels=channels)])


# ── channels ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(data=data_sets())
def test_channel_figures_are_those_of_the_values(data: Data) -> None:
    for view in simple(data).channels:
        by_channel = np.moveaxis(data[view.tensor], view.axis, 0)
        values = by_channel.reshape(len(by_channel), -1).astype(np.float64)
        assert view.elements == values.shape[1]
        assert view.minimum.tolist() == values.min(axis=1).tolist()
        assert view.maximum.tolist() == values.max(axis=1).tolist()
        scale = np.abs(values).sum(axis=1)
        assert (np.abs(view.sum - [math.fsum(c) for c in values]) <= 1e-14 * scale).all()
        squares = [math.fsum(c * c) for c in values]
        assert view.sum_of_squares == pytest.approx(squares, rel=1e-14)
        assert view.mean.tolist() == (view.sum / view.elements).tolist()


@pytest.mark.parametrize("slices", [[1, 1, 1, 1], [2, 2], [1, 3]])
def test_samples_along_the_second_axis_add_up_in_any_slices(slices: list[int]) -> None:
    """[sequence, samples, channels]: a slice may hold as many samples as the sequence has steps."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2, 4, 3)) * 2.0 ** rng.integers(-40, 40, (2, 4, 3))).astype(F32)
    figures = []
    for cut in ([4], slices):
        collector = Collector(["t"], [("t", -1)], INVARIANT)
        for part in np.split(x, np.cumsum(cut)[:-1], axis=1):
            collector.count("t", part, whole=True)
        figures.append(collector.statistics({}, origin_of(fixed_data())).channels[0].sums.tolist())
    assert figures[0] == figures[1]


@pytest.mark.parametrize("batch", [(), ("t",)])
def test_a_vector_has_the_axis_of_its_channels_alone(batch: tuple[str, ...]) -> None:
    collector = Collector(["t"], [("t", -1)], INVARIANT, batch)
    for _ in range(2):
        assert collector.count("t", np.arange(8, dtype=F32), whole=True)
    (found,) = collector.statistics({}, origin_of(fixed_data())).channels
    np.testing.assert_array_equal(found.minimum, np.arange(8))
    assert found.elements == 2


@pytest.mark.parametrize("mode", HistogramMode)
@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 3, 0), (0, 3)])
def test_a_tensor_that_is_empty_for_some_samples_adds_nothing(mode: HistogramMode, shape: tuple[int, ...]) -> None:
    figures = []
    for empty in (False, True):
        collector = Collector(["t"], [("t", 1)], mode)
        for values in [np.zeros(shape, F32)] * empty + [np.full((4, 3, 5), 2.0, F32)] + [np.zeros(shape, F32)] * empty:
            assert collector.count("t", values, whole=True)
            assert collector.end_batch() == ()
        figures.append(statistics_bytes(collector.statistics({}, origin_of(fixed_data()))))
    assert figures[0] == figures[1]
