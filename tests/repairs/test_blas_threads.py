"""Threads of linear algebra: one for small matrices, as many as there were for wide ones and afterwards."""

from __future__ import annotations

import os

import numpy as np
import pytest

from quantkit import cli
from quantkit.cli import application
from quantkit.repairs.blas_threads import WIDE, blas_libraries, blas_threads


def threads() -> set[int]:
    """How many threads each library for linear algebra takes."""
    return {library["num_threads"] for library in blas_libraries().info() if library["user_api"] == "blas"}


def test_small_matrices_take_one_thread_and_wide_ones_all() -> None:
    assert np.linalg.inv(np.eye(2)).shape == (2, 2)
    if not threads():
        pytest.skip("the linear algebra of this numpy has no threads that can be limited")
    with blas_libraries().limit(limits=2, user_api="blas"):
        with blas_threads(WIDE):
            assert threads() == {2}
        with blas_threads(WIDE - 1):
            assert threads() == {1}
        assert threads() == {2}


def test_threads_that_overlap_leave_the_number_as_it_was() -> None:
    if not threads():
        pytest.skip("the linear algebra of this numpy has no threads that can be limited")
    with blas_libraries().limit(limits=2, user_api="blas"):
        first, second = blas_threads(1), blas_threads(1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


@pytest.mark.parametrize("own", [None, "26"])
def test_the_command_has_idle_threads_sleep_unless_the_user_wishes_otherwise(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", {"OPENBLAS_THREAD_TIMEOUT": own} if own else {})
        patch.setattr("signal.signal", lambda *_: None)
        patch.setattr(application, "run_program", lambda: seen.append(os.environ["OPENBLAS_THREAD_TIMEOUT"]))
        cli.main()
    assert seen == [own or "4"]
