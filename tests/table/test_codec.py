"""The codec of calibration tables: byte for byte there and back, strict errors; and tables beside each other."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit.cli import invoke as run
from quantkit.errors import TableError, UsageError
from quantkit.numerics import scale_of_word, word_of
from quantkit.table import Algorithm, CalibrationTable, Header, coverage, diff, parse_table, read_table, table_bytes
from quantkit.tensorrt_version import version_number

HEAD = "TRT-8601-EntropyCalibration2"
NAMED = [Algorithm.ENTROPY_2, Algorithm.MIN_MAX, Algorithm.ENTROPY]
AWKWARD = [
    "a: 3c010204",
    ": ",
    " ",
    "input_1:0",
    "(Unnamed Layer* 12) [Constant]_output",
    "é",
    "\u2028",
    "\x85",
    "\x0b",
    "\t",
]

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1) | st.sampled_from(
    AWKWARD
)
scales = st.floats(0.0, float(np.finfo(np.float32).max), width=32)
versions = st.integers(1000, 999_999)
doubles = st.floats(allow_nan=False)
headers = st.builds(Header, st.sampled_from(NAMED), versions) | st.builds(
    Header, st.just(Algorithm.LEGACY), st.none(), doubles, doubles, st.booleans()
)
tables = st.dictionaries(names, scales)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A table's bytes as some TensorRT might have written them: duplicates, padded words, either line end."""
    content = draw(tables)
    entries = list(content) + draw(st.lists(st.sampled_from(list(content)))) if content else []
    words = [word_of(content[name]).zfill(draw(st.sampled_from([0, 8]))) for name in entries]
    lines = [f"{n}: {draw(st.sampled_from([w, w.upper()]))}" for n, w in zip(entries, words, strict=True)]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join([draw(headers).text, *lines, ""]).encode()


# ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(header=headers, content=tables)
def test_a_table_is_read_as_it_was_written(header: Header, content: dict[str, float]) -> None:
    read = parse_table(table_bytes(CalibrationTable(header, content)))
    assert (read.header, list(read.scales.items())) == (header, list(content.items()))


@given(content=files())
def test_a_file_is_written_as_it_was_read(content: bytes) -> None:
    assert table_bytes(parse_table(content)) == content


@given(content=files(), header=headers)
def test_another_header_leaves_the_lines_alone(content: bytes, header: Header) -> None:
    table = parse_table(content)
    head, lines = content.split(b"\n", 1)
    ending = b"\r\n" if head.endswith(b"\r") else b"\n"
    assert table_bytes(table.with_header(header)) == header.text.encode() + ending + lines


@given(header=headers, content=tables)
def test_a_line_is_name_colon_and_unpadded_word(header: Header, content: dict[str, float]) -> None:
    lines = [f"{name}: {struct.unpack('>I', struct.pack('>f', scale))[0]:x}\n" for name, scale in content.items()]
    assert table_bytes(CalibrationTable(header, content)) == f"{header.text}\n{''.join(lines)}".encode()


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_table_or_a_table_error(text: str) -> None:
    for content in (text, f"{HEAD}\n{text}", f"{HEAD}\n{text}\n", f"{HEAD}\r\n{text}\r\n"):
        try:
            table = parse_table(content.encode())
        except TableError as error:
            assert "line " in error.problem  # noqa: PT017 (both ends are right)
        else:
            assert table_bytes(table) == content.encode()


def golden_files(shared: Path, folder: str) -> list[Path]:
    found = [p for p in sorted((shared / "golden" / folder).iterdir()) if p.suffix in (".cache", ".txt")]
    assert len(found) >= 5
    return found


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["published", "networks"])
def test_tables_that_tensorrt_wrote_go_there_and_back(shared: Path, folder: str) -> None:
    for path in golden_files(shared, folder):
        table = read_table(path)
        assert table_bytes(table) == path.read_bytes(), path.name
        assert len(table) > 1
        assert table_bytes(CalibrationTable(table.header, table.scales, newline=table.newline)) == path.read_bytes()


# ── by example ──────────────────────────────────────────────────────────────────────────────────────────────────────


def table_of(*lines: str, head: str = HEAD) -> CalibrationTable:
    return parse_table("".join(f"{line}\n" for line in (head, *lines)).encode())


def test_names_may_hold_what_separates_them() -> None:
    table = table_of("input_1:0: 3c010204", "a: b: 3f800000", "(Unnamed Layer* 12) [Constant]_output: 0", " x : 1")
    assert dict(table.scales) == {
        "input_1:0": scale_of_word("3c010204"),
        "a: b": 1.0,
        "(Unnamed Layer* 12) [Constant]_output": 0.0,
        " x ": 2.0**-149,
    }
    assert table.amax("a: b") == 127.0
    assert len(table) == 4


def test_a_tensor_may_stand_twice_with_one_scale() -> None:
    assert table_of("x: 3c010204", "y: 0", "x: 3C010204", "y: 00000000").scales.keys() == {"x", "y"}


def test_two_scales_of_a_tensor_are_refused_with_both_lines() -> None:
    with pytest.raises(TableError, match=r"line 5: 'x'.* in line 3"):
        table_of("y: 0", "x: 3c010204", "x: 3c010204", "x: 3c010205")


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("TRT-8601-EntropyCalibration2", Header(Algorithm.ENTROPY_2, 8601)),
        ("TRT-100300-MinMaxCalibration", Header(Algorithm.MIN_MAX, 100300)),
        ("TRT-5101-EntropyCalibration", Header(Algorithm.ENTROPY, 5101)),
        ("0 3ff0000000000000 3fefff2e48e8a71e", Header(Algorithm.LEGACY, None, 1.0, 0.9999, True)),
        ("03ff00000000000003feffffde7210be9", Header(Algorithm.LEGACY, None, 1.0, 0.999999, False)),
    ],
)
def test_headers(text: str, header: Header) -> None:
    assert table_of(head=text).header == header
    assert header.text == text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x: 3c0102zz", "not a hexadecimal word"),
        ("x: 3c0102045", "not a hexadecimal word"),
        ("x: 0x3c0102", "not a hexadecimal word"),
        ("x: ", "not a hexadecimal word"),
        ("x: 3c010204 ", "not a hexadecimal word"),
        ("x: 7fc00000", "nan is not a scale"),
        ("x: 7f800000", "inf is not a scale"),
        ("x: ff800000", "-inf is not a scale"),
        ("x: bc010204", "is not a scale"),
        ("x: 80000000", "-0.0 is not a scale"),
        ("x:3c010204", "not `name: scale`"),
        ("3c010204", "not `name: scale`"),
        (": 3c010204", "not `name: scale`"),
        ("", "not `name: scale`"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(line: str, problem: str) -> None:
    with pytest.raises(TableError, match=f"line 3: .*{problem}"):
        table_of("y: 0", line, "z: 0")


@pytest.mark.parametrize(
    "head",
    ["", "x: 3c010204", "TRT-8601", "TRT-8601-", "TRT--EntropyCalibration2", "TRT-8601-EntropyCalibration2 ",
     " " + HEAD, "\ufeff" + HEAD, "trt-8601-EntropyCalibration2", "TRT-860-MinMaxCalibration",
     "TRT-1234567-MinMaxCalibration", "TRT-8601-EntropyCalibration3", "TRT-8601-LegacyCalibration",
     "0 3ff0000000000000", "0 3ff00000000000003fefff2e48e8a71e", "03ff0000000000000 3fefff2e48e8a71e",
     "1 3ff0000000000000 3fefff2e48e8a71e"],
)  # fmt: skip
def test_a_bad_header_is_refused(head: str) -> None:
    with pytest.raises(TableError, match="line 1"):
        table_of("x: 3c010204", head=head)


@pytest.mark.parametrize("head", ["TRT-08601-MinMaxCalibration", "TRT-٨٦٠١-MinMaxCalibration"])
def test_a_header_that_would_not_be_written_again_is_refused(head: str) -> None:
    with pytest.raises(TableError, match="line 1"):
        table_of(head=head)


@given(content=files(), data=st.data())
def test_a_table_that_was_cut_short_is_refused(content: bytes, data: st.DataObject) -> None:
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    if not cut.endswith(b"\n"):
        with pytest.raises(TableError, match="line "):
            parse_table(cut)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (HEAD.encode(), 1),
        (f"{HEAD}\nx: 3c010204\ny: 3c".encode(), 3),
        (f"{HEAD}\nx: 3c010204\n\xff: 0\n".encode("latin-1"), 3),
        (b"\x80" + HEAD.encode(), 1),
        (f"{HEAD}\nx: 0\ny\rz: 0\n".encode(), 3),
        (f"{HEAD}\r\nx: 0\r\ny: 0\nz: 0\r\n".encode(), 3),
    ],
    ids=["empty", "header-cut", "cut", "not-utf8", "not-utf8-header", "carriage-return", "mixed-line-ends"],
)
def test_a_damaged_file_is_refused_by_its_line(content: bytes, line: int, tmp_path: Path) -> None:
    (tmp_path / "x.calib").write_bytes(content)
    with pytest.raises(TableError, match=rf"x\.calib, line {line}: "):
        read_table(tmp_path / "x.calib")


def test_a_file_that_is_not_there_is_a_table_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(TableError, match="check the path"):
            read_table(path)


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb"])
def test_a_name_that_cannot_stand_in_a_table_is_refused(name: str) -> None:
    with pytest.raises(TableError, match="is not possible"):
        CalibrationTable(Header(Algorithm.MIN_MAX, 8600), {"x": 1.0, name: 1.0})


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 1e39])
def test_a_scale_that_cannot_stand_in_a_table_is_refused(scale: float) -> None:
    with pytest.raises(TableError, match="'x' has scale"):
        CalibrationTable(Header(Algorithm.MIN_MAX, 8600), {"x": scale})


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "number"),
    [("8.6.1", 8601), ("8.5.10", 8510), ("8.0.1", 8001), ("9.0.0", 9000), ("10.0.1", 100001),
     ("10.3.0", 100300), ("10.10.0", 101000), ("10.13.3", 101303), ("10.14.1", 101401), ("10.3", 100300),
     ("10.13.3.9", 101303), ("8.6.1.post1", 8601)],
)  # fmt: skip
def test_the_version_number_is_tensorrts(text: str, number: int) -> None:
    assert version_number(text) == number


@given(st.integers(8, 9), st.integers(0, 9), st.integers(0, 99))
def test_versions_before_10_there_and_back(major: int, minor: int, patch: int) -> None:
    text = f"{major}.{minor}.{patch}"
    assert Header(Algorithm.MIN_MAX, version_number(text)).version_text == text


@given(st.integers(0, 99), st.integers(0, 99))
def test_versions_from_10_there_and_back(minor: int, patch: int) -> None:
    text = f"10.{minor}.{patch}"
    assert Header(Algorithm.MIN_MAX, version_number(text)).version_text == text


def test_a_legacy_header_is_of_any_version() -> None:
    assert Header(Algorithm.LEGACY).version_text == "any"


@pytest.mark.parametrize("text", ["11.0.0", "11.4", "12.0", "11"])
def test_versions_without_calibration_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="version 11 removed them"):
        version_number(text)


@pytest.mark.parametrize(
    "text", ["", "8.", "8601", "v8.6.1", "8.6.x", "8.6.1 ", " 8.6.1", "8.6.", "-8.6.1", "8,6,1", "8.6.1rc1", "3.0.0",
             "7.0.0", "7.2.3.4", "8.٣.1", "9" * 9999, "8.6.1\n", "10.100.0", "10.3.100", "8.10.0", "0.0.0"],
)  # fmt: skip
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r'tensorrt_version="(10\.13\.3|8\.6\.1)"'):
        version_number(text)


@given(st.integers(8, 10), st.integers(0, 9), st.integers(0, 99))
def test_numbers_that_are_not_given_are_0(major: int, minor: int, patch: int) -> None:
    assert version_number(f"{major}") == version_number(f"{major}.0") == version_number(f"{major}.0.0")
    assert version_number(f"{major}.{minor}") == version_number(f"{major}.{minor}.0")
    assert version_number(f"{major}.{minor}.{patch}.post1") == version_number(f"{major}.{minor}.{patch}.7.2")


# ── beside each other ───────────────────────────────────────────────────────────────────────────────────────────────


def plain(content: dict[str, float], algorithm: Algorithm = Algorithm.MIN_MAX) -> CalibrationTable:
    return CalibrationTable(Header(algorithm, 8600), content)


few = st.dictionaries(st.sampled_from("abcdef"), scales).map(plain)


@given(few)
def test_a_table_does_not_differ_from_itself(table: CalibrationTable) -> None:
    difference = diff(table, table)
    assert difference.equal
    assert difference.worst == 0.0
    assert difference.ratios == dict.fromkeys(table.scales, 1.0)


@given(few, few)
@example(plain({"a": 2.0**-149}), plain({"a": 1e38}))
@example(plain({"a": 0.0, "b": 1.0}), plain({"a": 1.0, "b": 0.0}))
def test_a_difference_names_every_tensor_once_and_the_worst_first(a: CalibrationTable, b: CalibrationTable) -> None:
    there, back = diff(a, b), diff(b, a)
    assert set(there.only_a) == a.scales.keys() - b.scales.keys() == set(back.only_b)
    assert set(there.only_b) == b.scales.keys() - a.scales.keys() == set(back.only_a)
    assert there.ratios.keys() == a.scales.keys() & b.scales.keys() == back.ratios.keys()
    assert there.equal == back.equal == (dict(a.scales) == dict(b.scales))
    deviations = [abs(ratio - 1.0) for ratio in there.ratios.values()]
    assert deviations == sorted(deviations, reverse=True)
    assert there.worst == (deviations[0] if deviations else 0.0)


def test_a_difference_by_example() -> None:
    a = plain({"x": 1.0, "y": 2.0, "zero": 0.0, "new": 0.0, "a": 1.0})
    b = plain({"y": 1.0, "x": 1.5, "zero": 0.0, "new": 1.0, "b": 1.0}, Algorithm.ENTROPY_2)
    difference = diff(a, b)
    assert list(difference.ratios.items()) == [("new", math.inf), ("x", 1.5), ("y", 0.5), ("zero", 1.0)]
    assert (difference.only_a, difference.only_b) == (("a",), ("b",))
    assert difference.headers == ("TRT-8600-MinMaxCalibration", "TRT-8600-EntropyCalibration2")


@given(few, st.lists(st.sampled_from("abcdefgh"), unique=True))
def test_coverage_splits_network_and_table(table: CalibrationTable, wanted: list[str]) -> None:
    c = coverage(table, wanted)
    assert c.matched == tuple(t for t in wanted if t in table.scales)
    assert sorted(c.matched + c.missing) == sorted(wanted)
    assert sorted(c.matched + c.extra) == sorted(table.scales)
    assert c.share == (len(c.matched) / len(wanted) if wanted else 0.0)


def test_tables_with_scales_of_zero_are_shown_and_converted_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, made = tmp_path / "t.calib", tmp_path / "made.calib"
    source.write_bytes(b"TRT-8601-EntropyCalibration2\nx: 3c010204\nz: 0\n")
    assert run(["table", "show", str(source)]) == 0
    assert run(["table", "convert", str(source), "-o", str(made), "--tensorrt-version", "10.3"]) == 0
    assert capsys.readouterr().err.count("1 tensor was zero throughout and had the scale 0") == 2
    assert made.read_bytes().endswith(b"x: 3c010204\nz: 0\n"), "the same scales"
