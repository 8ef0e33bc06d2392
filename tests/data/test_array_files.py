"""Files of arrays: read like numpy, and what they only claim to hold is refused before memory is taken for it."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantkit.data import DataOptions, open_data
from quantkit.data.array_files import LARGEST_PIECE, open_arrays
from quantkit.errors import DataError
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput

INPUTS = (ModelInput("x", "float32", (None, 3)),)
LITTLE = 64 << 20
"""Bytes that a refusal may take: less than anything that the files below claim."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays")


def npy(shape: object, dtype: str = "<f4", *, fortran: object = False, data: bytes = b"", version: int = 1) -> bytes:
    """A `.npy` file with any header."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}}}".encode()
    text += b" " * (-len(text) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def npz(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice
        for name, member in members:
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def bomb() -> bytes:
    """A member that claims 100 GB in its headers, of which the file holds a few bytes."""
    content = bytearray(npz([("x", npy((25_000_000_000,)))]))
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # the uncompressed size in both directories
        at = content.index(signature) + place
        content[at : at + 4] = struct.pack("<I", 0xFFFFFF00)
    return bytes(content)


@given(
    array=hnp.arrays(st.sampled_from(["<f4", ">f8", "u1", "i8", "U3", "?"]), hnp.array_shapes(min_dims=0, max_dims=3)),
    fortran=st.booleans(),
    packed=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_rows_are_those_of_numpy(folder: Path, array: Any, fortran: bool, packed: bool, order: Any) -> None:
    stored = np.asfortranarray(array) if fortran and array.ndim else array
    np.save(folder / "a.npy", stored)
    (np.savez_compressed if packed else np.savez)(folder / "a.npz", array=stored)
    for name in ("a.npy", "a.npz"):
        rows = open_arrays(folder / name)["array"]
        assert (rows.shape, rows.dtype) == (array.shape, array.dtype)
        indices = list(range(len(array) if array.ndim else 0)) * 2
        order.shuffle(indices)
        for index in indices:
            assert np.array_equal(rows.row(index), array[index], equal_nan=array.dtype.kind == "f")
        assert np.array_equal(rows.whole(), array, equal_nan=array.dtype.kind == "f")


FIVE = np.zeros((5, 3), "<f4").tobytes()
LIES: dict[str, tuple[bytes, str]] = {
    "more rows": (npy((10**12, 3), data=FIVE), "holds 60"),
    "long rows": (npy((5, 10**12), data=FIVE), "holds 60"),
    "overflow": (npy((2**62, 2**62), data=FIVE), "holds 60"),
    "cut off": (npy((5, 3), data=FIVE[:-1]), "holds 59"),
    "empty rows": (npy((10**12, 0)), "hold no values"),
    "large values": (npy((1,), "V2000000000"), "holds 0"),
    "no values": (npy((5,), "V0"), "no bytes"),
    "objects": (npy((5,), "|O", data=b"cos\nsystem\n(S'true'\ntR."), "Python objects"),
    "negative": (npy((-1, 3), data=FIVE), "shape"),
    "boolean": (npy((True, 3), data=FIVE), "shape"),
    "text": (npy("'5'", data=FIVE), ""),
    "many axes": (npy((1,) * 40, data=FIVE), ""),
    "deep": (npy("(" * 1000 + ")" * 1000), ""),
    "long header": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFFF), "4,294,967,295"),
    "newer long header": (b"\x93NUMPY\x03\x00" + struct.pack("<I", 0xFFFFFFFF), "4,294,967,295"),
    "unknown version": (npy((5, 3), data=FIVE, version=9), "version 9.0"),
    "no header": (b"\x93NUMPY\x01\x00", ""),
    "nothing": (b"", ""),
    "code": (npy("__import__('os').abort()"), ""),
}


def refusal(path: Path) -> str:
    """The error for a file, whose memory is watched."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            open_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()
    assert path.name in caught.value.problem
    assert len(caught.value.problem) < 600
    return caught.value.problem


@pytest.mark.parametrize("kind", LIES)
def test_a_header_that_lies_is_refused(kind: str, tmp_path: Path) -> None:
    content, reason = LIES[kind]
    (tmp_path / "a.npy").write_bytes(content)
    assert reason in refusal(tmp_path / "a.npy")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (tmp_path / "a.npz").write_bytes(npz([("x", content)], method))
        assert reason in refusal(tmp_path / "a.npz")


PACKED = {
    "twice": (npz([("x", npy((5, 3), data=FIVE))] * 2), "twice"),
    "100 GB in 1 KB": (bomb(), "cannot hold"),
    "another method": (npz([("x", npy((5, 3), data=FIVE))], zipfile.ZIP_BZIP2), "does not use"),
    "no archive": (b"PK\x03\x04" + bytes(99), ""),
    "nothing inside": (npz([]), "no arrays"),
}


@pytest.mark.parametrize("kind", PACKED)
def test_an_archive_that_lies_is_refused(kind: str, tmp_path: Path) -> None:
    content, reason = PACKED[kind]
    (tmp_path / "a.npz").write_bytes(content)
    assert reason in refusal(tmp_path / "a.npz")
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "a.npz").write_bytes(content)
    feed, _ = open_data(tmp_path / "batches", INPUTS, Preprocess(), DataOptions())
    with pytest.raises(DataError, match=r"a\.npz"):
        list(feed.portions())


@pytest.mark.parametrize("fortran", [False, True])
def test_what_is_read_at_once_has_a_limit(fortran: bool, tmp_path: Path) -> None:
    """The bytes are there, as a hole in the file; a batch and a row of more than 1 GiB are refused unread."""
    header = npy((2, LARGEST_PIECE // 4), fortran=fortran)
    with open(tmp_path / "a.npy", "wb") as file:
        file.write(header)
        file.truncate(len(header) + 2 * LARGEST_PIECE)
    rows = open_arrays(tmp_path / "a.npy")["array"]
    if not fortran:
        with pytest.raises(DataError, match=r"the array has 2\.0 GiB"):
            rows.whole()
    header = npy((2, LARGEST_PIECE), fortran=fortran)
    with open(tmp_path / "b.npy", "wb") as file:
        file.write(header)
        file.truncate(len(header) + 8 * LARGEST_PIECE)
    if not fortran:
        with pytest.raises(DataError, match=r"a row has 4\.0 GiB"):
            open_arrays(tmp_path / "b.npy")["array"].row(0)


def test_a_file_of_countless_rows_asks_for_a_limit(tmp_path: Path) -> None:
    header = npy((10**9, 3))
    with open(tmp_path / "a.npy", "wb") as file:
        file.write(header)
        file.truncate(len(header) + 12 * 10**9)
    with pytest.raises(DataError, match="1,000,000,000 samples") as caught:
        open_data(tmp_path / "a.npy", INPUTS, Preprocess(), DataOptions(whole=True))
    assert "--limit" in caught.value.remedy
    feed, _ = open_data(tmp_path / "a.npy", INPUTS, Preprocess(), DataOptions(limit=4))
    (portion,) = feed.portions()
    assert portion.batch["x"].shape == (4, 3)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1000, 3), np.float32))
    rows = open_arrays(tmp_path / "a.npy")["array"]
    assert rows.row(0).sum() == 3
    os.truncate(tmp_path / "a.npy", 600)
    with pytest.raises(DataError, match="ends in row 999"):
        rows.row(999)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_pipe_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert "a named pipe" in refusal(tmp_path / name)
    with pytest.raises(DataError, match=name):
        open_data(tmp_path / name, INPUTS, Preprocess(), DataOptions())
