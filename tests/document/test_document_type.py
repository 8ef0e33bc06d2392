"""The door for documents: whatever a file holds, a typed value or one error with file, place and remedy; at once."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.document.document_type import DEEPEST, LARGEST_BY_HAND, DocumentType, decode_text
from quantkit.errors import DataError, QuantkitError, TableError
from quantkit.frozen_record import FrozenRecord
from quantkit.regular_file import open_regular, read_regular


class Pet(FrozenRecord):
    """A record for the tests."""

    name: str
    legs: int = 4
    weights: tuple[float, ...] = ()


PET = DocumentType[Pet](Pet, "a pet", TableError, "buy another")
PETS = DocumentType[Pet](Pet, "a pet", DataError, "buy another", form="TOML")


@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_what_was_written_is_read_back(name: str, legs: int, weights: list[float]) -> None:
    """The value of a record's own JSON is the record."""
    pet = Pet(name=name, legs=legs, weights=tuple(weights))
    assert PET.parse(pet.model_dump_json(), "x") == pet


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"name": 5}', "name: input should be a valid string"),
        ('{"name": "Rex", "legs": "4"}', "legs: input should be a valid integer"),
        ('{"name": "Rex",\n "legs": 4,}', "line 2 is not JSON"),
        ('{"name": "Rex", "name": "Max"}', "'name' comes twice"),
        ('{"name": "Rex", "weights": [NaN]}', "NaN is no number"),
        ('{"name": "Rex", "weights": [1, 1e400]}', "weights.1 is inf"),
        ('{"name": "Rex", "legs": 9' + "9" * 9999 + "}", "more than 64 bits"),
        ('{"name": "Rex", "legs": 99999999999999999999}', "legs has more than 64 bits"),
        ('{"name": "Rex", "tail": 1}', "tail: extra inputs"),
        ("[" * 100_000, f"more than {DEEPEST} deep"),
        ("[" * 99 + "]" * 99, f"more than {DEEPEST} deep"),
        ("null", "x is not a pet: input should be an object"),
        ("", "line 1 is not JSON"),
    ],
)
def test_json_faults_name_their_place(text: str, place: str) -> None:
    """Each fault is one short line of the error class of the document, with the remedy of the document."""
    with pytest.raises(TableError) as caught:
        PET.parse(text, "x")
    assert place in caught.value.problem
    assert caught.value.remedy == "buy another"
    assert len(caught.value.problem) < 300
    assert "\n" not in caught.value.problem


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name = 'Rex'\nlegs = ", "not TOML"),
        ("name = 'Rex'\nlegs = 4 x", "line 2 is not TOML"),
        ("name = 'Rex'\nlegs = " + "9" * 9999, "more than 64 bits"),
        ("name = 'Rex'\nlegs = 0x" + "f" * 9999, "more than 64 bits"),
        ("name = 2020-01-01", "name is a date"),
        ("name = 'Rex'\nweights = [inf]", "weights.0 is inf"),
        ("weights = " + "[" * 100_000, f"more than {DEEPEST} deep"),
    ],
)
def test_toml_faults_name_their_place(text: str, place: str) -> None:
    """TOML goes through the same door."""
    with pytest.raises(DataError) as caught:
        PETS.parse(text, "x")
    assert place in caught.value.problem


def test_names_of_files_that_are_not_utf8_come_back() -> None:
    """Half of a surrogate pair stands for a byte of a file name; the door lets it through."""
    assert PET.parse('{"name": "M\\udce4dchen"}', "x").name == "M\udce4dchen"


@pytest.mark.parametrize("content", [b'{"name": "\xff"}', '{"name": "x"}'.encode("utf-16"), b'\n\n{"name": "\0"}'])
def test_other_encodings_are_refused(content: bytes, tmp_path: Path) -> None:
    """UTF-16, Latin-1 and NUL are no text in UTF-8; the error names the line."""
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(TableError, match=rf"line {content.count(10) + 1} is not text in UTF-8"):
        PET.read(tmp_path / "x.json")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"name": "Rex"}')
    assert PET.read(tmp_path / "x.json").name == "Rex"
    assert decode_text(b"\xef\xbb\xbfa") == "a"


def test_a_missing_file_is_an_error_or_none(tmp_path: Path) -> None:
    """`read` needs the file, `read_optional` does not."""
    with pytest.raises(TableError, match="No such file"):
        PET.read(tmp_path / "x.json")
    assert PET.read_optional(tmp_path / "x.json") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Pipes, devices, folders and impossible names are refused at once; a link to a file is opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, "a\0b", "a" * 300, tmp_path / "loop"):
        with pytest.raises(OSError, match="Errno") as caught:
            open_regular(path)
        assert caught.value.strerror
        with pytest.raises(QuantkitError):
            PET.read(path)
        with pytest.raises(QuantkitError):
            PET.read_optional(path)
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "link", 2)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """The limit of TOML is that of a file written by hand."""
    with open(tmp_path / "x.toml", "wb") as file:
        file.truncate(LARGEST_BY_HAND + 1)
    with pytest.raises(DataError, match="larger than 1 MiB"):
        PETS.read(tmp_path / "x.toml")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(content: bytes) -> None:
    """No other exception leaves the door."""
    for door in (PET, PETS):
        with contextlib.suppress(door.failure):
            door.parse(content.decode("utf-8", "replace"), "x")
