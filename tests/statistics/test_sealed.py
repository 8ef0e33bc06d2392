"""Sealed files: every bit of them is covered, and the same content is the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from quantkit.statistics.sealed import SEAL, check_typed, read_sealed, sealed_bytes

ARRAYS = {"a": np.arange(5.0), "b/ä": np.arange(6, dtype=np.int64).reshape(2, 3), "empty": np.zeros((0, 2), np.float32)}
WHOLE = sealed_bytes(ARRAYS, "key", '{"text": "ä\\u001b"}')


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed") / "file"


def test_what_was_written_is_read(path: Path) -> None:
    path.write_bytes(WHOLE)
    read = read_sealed(path, "key")
    assert (read.text, read.sealed) == ('{"text": "ä\\u001b"}', True)
    assert {name: array.tolist() for name, array in read.arrays.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    assert sealed_bytes(dict(reversed(ARRAYS.items())), "key", read.text) == WHOLE


@given(bit=st.integers(0, 8 * len(WHOLE) - 1))
def test_one_flipped_bit_anywhere_is_noticed(path: Path, bit: int) -> None:
    content = bytearray(WHOLE)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        read = read_sealed(path, "key")
    except (ValueError, KeyError):
        return
    assert not read.sealed  # the name of the seal itself
    assert set(read.arrays) != set(ARRAYS)


def test_a_file_without_a_seal_says_so(path: Path) -> None:
    path.write_bytes(save(ARRAYS, {"key": "text"}))
    assert not read_sealed(path, "key").sealed
    with pytest.raises(KeyError):
        read_sealed(path, "other")


@pytest.mark.parametrize("seal", [np.zeros(32, np.uint8), np.zeros(4, np.uint8), np.zeros(0), np.zeros(64)])
def test_another_seal_is_damage(path: Path, seal: np.ndarray) -> None:
    path.write_bytes(save({**ARRAYS, SEAL: seal}, {"key": "text"}))
    with pytest.raises(ValueError, match="not what was written"):
        read_sealed(path, "key")


def test_types_and_shapes_are_exact() -> None:
    assert check_typed(np.zeros((2, 3)), np.float64, (2, 3)).size == 6
    for dtype, shape in ((np.float32, (2, 3)), (np.float64, (3, 2)), (np.float64, (6,))):
        with pytest.raises(ValueError, match="an array is"):
            check_typed(np.zeros((2, 3)), dtype, shape)
