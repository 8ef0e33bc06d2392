"""Only regular files are read: whatever has no end is an OSError that says what it is, and nothing waits."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantkit.regular_file import file_fault, read_regular, read_regular_text, refuse_irregular, regular_file_digest


@pytest.fixture(name="socket_file")
def bound_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        yield tmp_path / "s"


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = bytes(range(256)) * 9000
    path.write_bytes(content)
    link = tmp_path / "b"
    link.symlink_to(path)
    for name in (path, link, str(path)):
        assert read_regular(name) == content
        assert regular_file_digest(name) == hashlib.sha256(content).hexdigest()
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_regular_text(path) == "café"


@pytest.mark.parametrize("read", [read_regular, regular_file_digest, refuse_irregular, read_regular_text])
def test_what_has_no_end_is_refused(read: object, tmp_path: Path, socket_file: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "linked").symlink_to(tmp_path / "pipe")
    known = {
        tmp_path / "pipe": "a named pipe",
        tmp_path / "linked": "a named pipe",
        socket_file: "a socket",
        Path("/dev/zero"): "a device",
        tmp_path: "a folder",
    }
    for path, kind in known.items():
        with pytest.raises(OSError, match=kind) as caught:
            read(path)  # type: ignore[operator]
        assert file_fault(caught.value) == f"it is {kind}, not a regular file"
    for name, fault in ((tmp_path / "none", "No such file"), ("a\0b", "null byte"), ("x" * 5000, "too long")):
        with pytest.raises(OSError, match=fault):
            read(name)  # type: ignore[operator]


def test_a_file_is_refused_by_its_size_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 1024 MiB"):
        read_regular(path)
    path.write_bytes(bytes(11))
    with pytest.raises(OSError, match="larger"):
        read_regular(path, most=10)
    assert len(read_regular(path, most=11)) == 11
