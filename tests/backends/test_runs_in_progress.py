"""Runs without end are ended from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from quantkit.backends import runs_in_progress
from quantkit.backends.onnxruntime import stoppable
from quantkit.backends.runs_in_progress import RunsInProgress
from quantkit.backends.session import open_session
from quantkit.graph import load_model

ENDLESS = """<ir_version: 8, opset_import: ["": 17]> net (float[2] x) => (float[2] y) {
    go = Constant<value = bool {1}>()  most = Constant<value = int64 {9223372036854775807}>()
    y = Loop(most, go, x) <body = inside (int64 i, bool k, float[2] a) => (bool l, float[2] b) {
        l = Identity(k)  b = Abs(a) }> }"""


@dataclass
class Flag:
    """What a library looks at while it runs."""

    terminate: bool = False


@pytest.mark.parametrize("end", [RunsInProgress.stop, RunsInProgress.stop_overdue], ids=["at once", "overdue"])
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_a_loop_without_end_is_ended(
    end: Callable[[RunsInProgress], None], fixed_shapes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(parser.parse_model(ENDLESS).SerializeToString())
    runs = RunsInProgress()
    monkeypatch.setattr(stoppable, "RUNS", runs)
    monkeypatch.setattr(runs_in_progress, "LEAST_PATIENCE", 0.0)
    run = open_session(load_model(tmp_path / "net.onnx"), ["y"], fixed_shapes=fixed_shapes).runner()
    timer = threading.Timer(0.1, end, [runs])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run({"x": np.ones(2, np.float32)})
    timer.join()


def test_only_runs_that_take_far_longer_than_others_are_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(runs_in_progress.time, "monotonic", lambda: now[0])
    runs, usual, slow = RunsInProgress(), Flag(), Flag()
    runs.begin(usual)
    now[0] = 10.0
    runs.end(usual)
    runs.begin(slow)
    for seconds, overdue in ((29.0, False), (31.0, True)):
        now[0] = 10.0 + seconds
        runs.stop_overdue()
        assert slow.terminate is overdue
    runs.end(slow)
    runs.begin(usual)
    assert not usual.terminate, "runs that begin later are not late"


def test_after_a_stop_no_run_begins() -> None:
    runs, before, after = RunsInProgress(), Flag(), Flag()
    runs.begin(before)
    runs.stop()
    runs.begin(after)
    assert before.terminate
    assert after.terminate
