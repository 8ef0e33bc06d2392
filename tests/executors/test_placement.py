"""Where the shards of a pass run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.errors import UsageError
from quantkit.executors.placement import Placement

THREADS = st.integers(1, 64)


@given(THREADS, THREADS)
def test_threads_are_refused_on_ray_alone(threads: int, default: int) -> None:
    Placement(2).refuse_threads(threads, default)
    if threads == default:
        Placement(2, "ray").refuse_threads(threads, default)
        return
    with pytest.raises(UsageError, match=f"threads={threads} is for workers on this machine"):
        Placement(2, "ray").refuse_threads(threads, default)
