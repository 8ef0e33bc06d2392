"""Failures of stores: which may pass by themselves, and what an error says about the others."""

from __future__ import annotations

import re

from quantkit.errors import DataError, QuantkitError, first_line

CREDENTIALS = {
    "s3": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for public buckets",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS; FSSPEC_GS_TOKEN=anon for public buckets",
    "hf": "check HF_TOKEN, or log in with: hf auth login; gated data sets need their terms accepted on the Hub",
}
"""Scheme → remedy where access is refused."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of HTTP that may pass by themselves."""
PASSING_NAMES = re.compile(r"Timeout|Connect|Disconnected|ClientPayload|IncompleteRead|SlowDown|RemoteProtocol")
"""Names of exceptions of network libraries that mean the same."""
REFUSED = frozenset({401, 403, 407})


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
    scheme = url.partition(":")[0].lower()
    what = f"{problem} {url}"
    if isinstance(error, FileNotFoundError) or status_of(error) == 404:
        text = cause_of(error) if "bucket" in str(error) else "there is no such object"
        return kind(f"{what}: {text}", remedy="check the address, and what its store lists")
    if is_refused(error):
        remedy = CREDENTIALS.get(scheme, "check the address, and whether it can be read without logging in")
        return kind(f"{what}: access is refused ({cause_of(error)})", remedy=remedy)
    again = f" (tried {attempts} times)" if attempts > 1 else ""
    return kind(f"{what}: {cause_of(error)}{again}", remedy="check the address and the connection, then start again")
