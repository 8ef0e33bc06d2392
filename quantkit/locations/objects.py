"""Places beyond this machine's folders: objects under URLs, through fsspec.

    s3://bucket/key   gs://bucket/key   hf://datasets/owner/name/file   https://host/file   file:///path   memory://name

Credentials come from where the tools of each service have them: environment variables and files in the home folder. An
object is written whole or not at all. What may pass by itself, such as a broken connection, is tried again a few times,
with a warning in Python's log; everything else, and the last failure, is one error that names the object.
"""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from quantkit.errors import BackendError, DataError, OutputError, QuantkitError
from quantkit.extras import install_command
from quantkit.locations.failures import cause_of, is_passing, status_of, store_failure
from quantkit.staging import staged_files

T = TypeVar("T")
SCHEMES = {
    "s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp",
    "file": "fsspec", "memory": "fsspec",
}  # fmt: skip
"""Scheme → the library that reaches it, beside fsspec."""
URL = re.compile(rf"({'|'.join(SCHEMES)})://(.*)", re.DOTALL | re.IGNORECASE)
OTHER_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
"""The beginning of a URL of any scheme; one letter is a drive of Windows."""
PAUSES = (0.5, 2.0)
"""Seconds before an operation is tried the second and the third time."""
VERSIONS = ("ETag", "etag", "e_tag", "generation", "VersionId", "blob_id", "oid", "md5Hash")
"""Keys under which stores say which version of an object they have."""
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
LOG = logging.getLogger("quantkit")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as its store lists it. size: bytes; None if the store does not say.

    version: what changes with the content, such as the ETag, or else the time of modification; "" if the store names
    neither.
    """

    url: str
    size: int | None
    version: str = ""


def is_url(value: object) -> bool:
    """Return True for a text that begins with one of the schemes, in whatever case."""
    return isinstance(value, str) and URL.match(value) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition(":")[0].lower()


def refuse_other_scheme(value: object, kind: type[QuantkitError] = DataError) -> None:
    """Raise an error of `kind` for a URL of a scheme that is not one of ours. Other values pass."""
    found = OTHER_URL.match(value) if isinstance(value, str) else None
    if found is not None and found[1].lower() not in SCHEMES:
        *most, last = [f"{scheme}://" for scheme in SCHEMES if scheme != "memory"]
        raise kind(
            f"{value}: nothing can be read or written at {found[1]}://",
            remedy=f"use a path on this machine, {', '.join(most)} or {last}",
        )


def join_url(url: str, name: str) -> str:
    """Return the URL of an object below another URL."""
    return f"{url.rstrip('/')}/{name}"


def url_name(url: str) -> str:
    """Return the last part of a URL."""
    return url.split("?")[0].rstrip("/").rpartition("/")[2]


def list_objects(url: str) -> tuple[StoredObject, ...]:
    """Return all objects below a URL, recursively, sorted; the object itself if it is one; empty if there is nothing.

    DataError where the store cannot be asked.
    """
    system, path = open_store(url)

    def found() -> tuple[StoredObject, ...]:
        system.invalidate_cache()  # others may write there
        try:
            if is_web_file(system, url, path):
                return (as_object(system, system.info(path), url),)
            entries = system.find(path, detail=True)
        except FileNotFoundError as error:
            refuse_hidden_failure(url, error)
            refuse_missing_bucket(system, url, path)
            return ()
        if not entries:
            refuse_missing_bucket(system, url, path)
        files = [entry for _, entry in sorted(entries.items()) if entry.get("type") != "directory"]
        return tuple(as_object(system, entry) for entry in files)

    return guarded(url, "cannot list", found)


def is_web_file(system: Any, url: str, path: str) -> bool:
    """Return True for a file of a web server, which would be read as a list of links if it were listed."""
    return scheme_of(url).startswith("http") and "text/html" not in system.info(path).get("mimetype", "text/html")


def refuse_hidden_failure(url: str, error: FileNotFoundError) -> None:
    """Raise the failure of a web server that fsspec tells as a missing file, whatever it was."""
    cause = error.__cause__
    if scheme_of(url).startswith("http") and cause is not None and status_of(cause) not in (404, 410):
        raise cause


def refuse_missing_bucket(system: Any, url: str, path: str) -> None:
    """Raise FileNotFoundError where a store with buckets has none of that name, rather than an empty one."""
    bucket = path.strip("/").split("/")[0]
    if scheme_of(url) in ("s3", "gs") and not system.exists(bucket):
        raise FileNotFoundError(f"there is no bucket {bucket}")


def find_object(url: str) -> StoredObject | None:
    """Return an object; None if there is none, or only objects below it. DataError where the store cannot be asked."""
    system, path = open_store(url)

    def found() -> StoredObject | None:
        system.invalidate_cache()
        try:
            entry = system.info(path)
        except FileNotFoundError as error:
            refuse_hidden_failure(url, error)
            return None
        return None if entry.get("type") == "directory" else as_object(system, entry, url)

    return guarded(url, "cannot read", found)


def object_exists(url: str) -> bool:
    """Return True if there is an object of that URL. DataError where the store cannot be asked."""
    return find_object(url) is not None


def as_object(system: Any, entry: dict[str, Any], url: str = "") -> StoredObject:
    """Return an entry of a listing as an object."""
    version = next((str(entry[key]) for key in (*VERSIONS, *TIMES) if entry.get(key)), "")
    return StoredObject(url or system.unstrip_protocol(entry["name"]), entry.get("size"), version)


def read_object(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return the bytes of an object, or those from `start` to `stop`. DataError, also where fewer arrive."""
    system, path = open_store(url)

    def read() -> bytes:
        content: bytes = system.cat_file(path, start=start, end=stop)
        if stop is not None:
            wanted = stop - (start or 0)
            if len(content) > wanted:
                raise DataError(
                    f"{url}: the server sends the whole object where a part is asked for",
                    remedy="copy it to a store that serves parts of objects, or to this machine",
                )
            if len(content) < wanted:
                raise ConnectionError(f"{len(content):,} of {wanted:,} bytes arrived")
        return content

    return guarded(url, "cannot read", read)


class ObjectReader(io.RawIOBase):
    """An object as a seekable file: every read is one request, which is repeated as any other."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. DataError."""
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        content = read_object(self._url, self._position, stop)
        buffer[: len(content)] = content
        self._position = stop
        return len(content)


def open_object(url: str, size: int | None = None, block: int = 1 << 20) -> io.BufferedReader:
    """Return an object as a seekable file, of which `block` bytes are read at once. DataError, also from its reads.

    size: of the object, if it is known.
    """
    if size is None:
        found = find_object(url)
        if found is None:
            raise store_failure(url, "cannot read", FileNotFoundError(), 1)
        size = found.size
    if size is None:
        raise DataError(
            f"{url}: the server does not say how large the object is",
            remedy="copy it to a store that does, or to this machine",
        )
    return io.BufferedReader(ObjectReader(url, size), block)


def write_object(url: str, content: bytes) -> None:
    """Write an object, whole or not at all; one that is there is replaced. OutputError."""
    system, path = open_store(url)
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        raise OutputError(f"{url}: nothing can be written to a web server", remedy="write to a folder, s3:// or gs://")
    if scheme == "file":
        os.makedirs(Path(path).parent, exist_ok=True)
        with staged_files() as new:
            new.write(Path(path), content)
        return

    guarded(url, "cannot write", lambda: system.pipe_file(path, content), OutputError)


def open_store(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it. BackendError where its library is not installed."""
    scheme = scheme_of(url)
    library = SCHEMES[scheme]
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(scheme + url[len(scheme) :])  # which knows schemes in lower case alone
    except ImportError:
        missing = library if is_installed("fsspec") else "fsspec"
        raise BackendError(
            f"{scheme}:// needs the library {missing}",
            remedy=f"install it: {install_command('gcs' if missing == 'gcsfs' else 'remote', missing)}",
        ) from None
    except QuantkitError:
        raise
    except Exception as error:  # libraries of stores check the URL, and look for credentials
        raise store_failure(url, "cannot open", error, 1) from None
    return system, path


def is_installed(library: str) -> bool:
    """Return True if a library can be imported."""
    from importlib.util import find_spec

    return find_spec(library) is not None


def guarded(url: str, problem: str, call: Callable[[], T], kind: type[QuantkitError] = DataError) -> T:
    """Return what a call of a store returns; what may pass is tried again. An error of `kind` that names the URL."""
    for attempt in range(1, len(PAUSES) + 2):
        try:
            return call()
        except QuantkitError:
            raise
        except Exception as error:  # of the network, the store, or its library
            if not is_passing(error) or attempt > len(PAUSES):
                raise store_failure(url, problem, error, attempt, kind) from None
            LOG.warning("%s: %s; trying again (%d of %d)", url, cause_of(error), attempt, len(PAUSES))
            time.sleep(PAUSES[attempt - 1])
    raise AssertionError("bug in quantkit: the last attempt neither returned nor raised")
