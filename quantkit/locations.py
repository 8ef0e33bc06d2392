"""Places beyond this machine's folders: objects under URLs, through fsspec.

    s3://bucket/key   gs://bucket/key   hf://datasets/owner/name/file   https://host/file   file:///path   memory://name

Credentials come from where the tools of each service have them: environment variables and files in the home folder. An
object is written whole or not at all. What may pass by itself, such as a broken connection, is tried again a few times,
with a warning in Python's log; everything else, and the last failure, is one error that names the object.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from quantkit.errors import BackendError, DataError, OutputError, QuantkitError, first_line
from quantkit.extras import install_command
from quantkit.staging import staged_files

T = TypeVar("T")
SCHEMES = {
    "s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp",
    "file": "fsspec", "memory": "fsspec",
}  # fmt: skip
"""Scheme → the library that reaches it, beside fsspec."""
URL = re.compile(rf"({'|'.join(SCHEMES)})://(.*)", re.DOTALL)
CREDENTIALS = {
    "s3": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for public buckets",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS; FSSPEC_GS_TOKEN=anon for public buckets",
    "hf": "check HF_TOKEN, or log in with: hf auth login; gated data sets need their terms accepted on the Hub",
}
"""Scheme → remedy where access is refused."""
PAUSES = (0.5, 2.0)
"""Seconds before an operation is tried the second and the third time."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of HTTP that may pass by themselves."""
PASSING_NAMES = re.compile(r"Timeout|Connection|Disconnected|ClientPayload|IncompleteRead|SlowDown|RemoteProtocol")
"""Names of exceptions of network libraries that mean the same."""
REFUSED = frozenset({401, 403, 407})
VERSIONS = ("ETag", "etag", "e_tag", "generation", "VersionId", "blob_id", "oid", "md5Hash")
"""Keys under which stores say which version of an object they have."""
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
TOLD = logging.getLogger("quantkit")


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
    """Return True for a text that begins with one of the schemes."""
    return isinstance(value, str) and URL.match(value) is not None


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
            entries = system.find(path, detail=True)
        except FileNotFoundError:
            refuse_missing_bucket(system, url, path)
            return ()
        if not entries:
            refuse_missing_bucket(system, url, path)
        files = [entry for _, entry in sorted(entries.items()) if entry.get("type") != "directory"]
        return tuple(as_object(system, entry) for entry in files)

    return guarded(url, "cannot list", found)


def refuse_missing_bucket(system: Any, url: str, path: str) -> None:
    """Raise FileNotFoundError where a store with buckets has none of that name, rather than an empty one."""
    bucket = path.strip("/").split("/")[0]
    if url.split(":")[0] in ("s3", "gs") and not system.exists(bucket):
        raise FileNotFoundError(f"there is no bucket {bucket}")


def find_object(url: str) -> StoredObject | None:
    """Return an object; None if there is none, or only objects below it. DataError where the store cannot be asked."""
    system, path = open_store(url)

    def found() -> StoredObject | None:
        system.invalidate_cache()
        try:
            entry = system.info(path)
        except FileNotFoundError:
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
                    remedy="copy it to a store that answers range requests, or to this machine",
                )
            if len(content) < wanted:
                raise ConnectionError(f"{len(content):,} of {wanted:,} bytes arrived")
        return content

    return guarded(url, "cannot read", read)


def open_object(url: str, block: int = 1 << 20) -> IO[bytes]:
    """Return an object as a seekable file, which reads `block` bytes ahead. DataError; reading it raises OSError."""
    system, path = open_store(url)

    def opened() -> IO[bytes]:
        file: IO[bytes] = system.open(path, "rb", block_size=block)
        if not file.seekable():
            raise DataError(
                f"{url}: the server does not say how large the object is, or answers no range requests",
                remedy="copy it to a store that does, or to this machine",
            )
        return file

    return guarded(url, "cannot read", opened)


def write_object(url: str, content: bytes) -> None:
    """Write an object, whole or not at all; one that is there is replaced. OutputError."""
    system, path = open_store(url)
    scheme = url.split(":")[0]
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
    library = SCHEMES[url.split(":", 1)[0]]
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except ImportError:
        missing = library if is_installed("fsspec") else "fsspec"
        raise BackendError(
            f"{url.split(':')[0]}:// needs the library {missing}",
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
            TOLD.warning("%s: %s; trying again (%d of %d)", url, cause_of(error), attempt, len(PAUSES))
            time.sleep(PAUSES[attempt - 1])
    raise AssertionError("bug in quantkit: the last attempt neither returned nor raised")


def status_of(error: BaseException) -> int | None:
    """Return the status code of HTTP in an exception of a network library."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        found = getattr(response, "status_code", found)
    return found if isinstance(found, int) else None


def is_passing(error: BaseException) -> bool:
    """Return True if an operation may succeed when it is tried again."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    if isinstance(error, (ConnectionError, TimeoutError)) or status_of(error) in PASSING:
        return True
    return PASSING_NAMES.search(type(error).__name__) is not None or (
        error.__cause__ is not None and is_passing(error.__cause__)
    )


def is_refused(error: BaseException) -> bool:
    """Return True if credentials are missing or do not suffice."""
    named = re.search(r"Credential|Unauthori[sz]ed|Forbidden|GatedRepo|TokenRetrieval", type(error).__name__)
    cause = error.__cause__
    return bool(
        isinstance(error, PermissionError) or named or status_of(error) in REFUSED or (cause and is_refused(cause))
    )


def cause_of(error: BaseException) -> str:
    """Return the problem in a library's exception, in one line."""
    text = (isinstance(error, OSError) and error.strerror) or first_line(error)
    return text.rstrip(".: ")


def store_failure(
    url: str, problem: str, error: BaseException, attempts: int, kind: type[QuantkitError] = DataError
) -> QuantkitError:
    """Return the failure of a store as one error with a remedy."""
    scheme = url.split(":")[0]
    what = f"{problem} {url}"
    if isinstance(error, FileNotFoundError) or status_of(error) == 404:
        text = cause_of(error) if "bucket" in str(error) else "there is no such object"
        return kind(f"{what}: {text}", remedy="check the address, and what its store lists")
    if is_refused(error):
        remedy = CREDENTIALS.get(scheme, "check the address, and whether it can be read without logging in")
        return kind(f"{what}: access is refused ({cause_of(error)})", remedy=remedy)
    again = f" (tried {attempts} times)" if attempts > 1 else ""
    return kind(f"{what}: {cause_of(error)}{again}", remedy="check the address and the connection, then start again")
