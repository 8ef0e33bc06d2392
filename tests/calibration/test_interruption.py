"""Runs that end early: what they leave is whole, and `--resume` ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantkit
from quantkit import CalibrateOptions, DataOptions
from quantkit.errors import Interrupted, StaleError, StatisticsError
from tests.support.networks import Command

MODEL = "net/model.onnx"
SLOW = """
import time
import numpy as np

def batches():
    for i in range(40):
        with open("progress", "a") as file:
            print(i, file=file)
        time.sleep(0.05)
        yield {"image": np.random.default_rng(i).normal(size=(4, 1, 16, 16)).astype("float32") * (i + 1)}
"""


class StopAfter:
    """Progress that asks to stop after some batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Nothing."""

    def advance(self, samples: int) -> None:
        """Nothing."""

    def stopped(self) -> bool:
        """Asked after every batch."""
        self.left -= 1
        return self.left <= 0

    def close(self) -> None:
        """Nothing."""


def options(**changes: Any) -> CalibrateOptions:
    """Small batches, so that there are many."""
    return CalibrateOptions(data=DataOptions(batch_size=8), **changes)


@pytest.mark.parametrize("stop_after", [1, 2, 5])
@pytest.mark.parametrize("mode", list(quantkit.HistogramMode))
@pytest.mark.parametrize("memory", [1 << 30, 1 << 18], ids=["one pass", "several passes"])
def test_a_resumed_run_ends_with_the_same_bytes(
    stop_after: int, mode: quantkit.HistogramMode, memory: int, place: Path
) -> None:
    first = options(histogram=mode, max_memory=memory)
    quantkit.calibrate(MODEL, "imgs", output="whole.calib", options=first)
    with pytest.raises(Interrupted, match="stopped after"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=first, progress=StopAfter(stop_after))
    assert [p.name for p in place.glob("x.*")] == ["x.stats.partial"]
    quantkit.calibrate(MODEL, "imgs", output="x.calib", options=options(histogram=mode, max_memory=memory, resume=True))
    assert (place / "x.stats.safetensors").read_bytes() == (place / "whole.stats.safetensors").read_bytes()
    assert (place / "x.calib").read_bytes() == (place / "whole.calib").read_bytes()
    assert not (place / "x.stats.partial").exists()


def test_unreadable_images_are_remembered_over_an_interruption(place: Path) -> None:
    for name in ("imgs/0/0000.png", "imgs/7/0000.png"):
        (place / name).write_bytes(b"nothing")
    data = DataOptions(batch_size=8, skip_corrupt=True)
    with pytest.raises(Interrupted):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=CalibrateOptions(data=data), progress=StopAfter(3))
    made = quantkit.calibrate(MODEL, "imgs", output="x.calib", options=CalibrateOptions(data=data, resume=True))
    assert [text.split(":")[0] for text in made.skipped] == ["0/0000.png", "7/0000.png"]
    assert made.samples == 60


def test_only_the_same_run_is_resumed(place: Path) -> None:
    with pytest.raises(Interrupted):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=options(), progress=StopAfter(2))
    with pytest.raises(StaleError, match="preprocessing"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", preprocess="unit", options=options(resume=True))
    (place / "x.stats.partial").write_bytes(b"damaged")
    with pytest.raises(StatisticsError, match="damaged"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=options(resume=True))
    (place / "x.stats.partial").unlink()
    with pytest.raises(StaleError, match="nothing to resume"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=options(resume=True))


def test_another_order_is_not_resumed_in_invariant_mode(place: Path) -> None:
    def shuffled(seed: int, *, resume: bool = False) -> CalibrateOptions:
        data = DataOptions(batch_size=8, shuffle=True, seed=seed)
        return CalibrateOptions(data=data, histogram=quantkit.HistogramMode.INVARIANT, resume=resume)

    with pytest.raises(Interrupted):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=shuffled(1), progress=StopAfter(3))
    with pytest.raises(StaleError, match="order of the data"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib", options=shuffled(2, resume=True))


def test_another_stream_is_not_taken_for_the_rest(place: Path) -> None:
    def batches(seed: int, count: int = 6) -> list[dict[str, Any]]:
        rng = np.random.default_rng(seed)
        return [{"image": rng.normal(size=(2, 1, 16, 16)).astype(np.float32)} for _ in range(count)]

    with pytest.raises(Interrupted):
        quantkit.calibrate(MODEL, batches(1), output="x.calib", progress=StopAfter(3))
    for other in (batches(2), batches(1, count=2)):
        with pytest.raises(StaleError, match="not that of the interrupted run"):
            quantkit.calibrate(MODEL, other, output="x.calib", options=CalibrateOptions(resume=True))
    quantkit.calibrate(MODEL, batches(1), output="x.calib", options=CalibrateOptions(resume=True))
    quantkit.calibrate(MODEL, batches(1), output="whole.calib")
    assert (place / "x.stats.safetensors").read_bytes() == (place / "whole.stats.safetensors").read_bytes()


def started(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """A slow calibration in a process, some batches on its way."""
    (place / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "quantkit", "calibrate", MODEL, "--data", "slow:batches", "-o", "x.calib", *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        if (place / "progress").exists() and len((place / "progress").read_text().splitlines()) > 8:
            return process
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_two_batches(number: int, place: Path, quantkit_command: Command) -> None:
    process = started(place)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert [p.name for p in place.glob("x.*")] == ["x.stats.partial"]
    quantkit_command("calibrate", MODEL, "--data", "slow:batches", "-o", "x.calib", "--resume")
    quantkit_command("calibrate", MODEL, "--data", "slow:batches", "-o", "whole.calib")
    assert (place / "x.stats.safetensors").read_bytes() == (place / "whole.stats.safetensors").read_bytes()


def test_a_killed_run_goes_on_from_its_last_checkpoint(place: Path, quantkit_command: Command) -> None:
    process = started(place, "--checkpoint-every", "2")
    process.kill()
    process.communicate(timeout=60)
    left = [p.name for p in place.iterdir() if "x." in p.name]
    assert "x.stats.partial" in left
    assert "x.calib" not in left
    quantkit_command("calibrate", MODEL, "--data", "slow:batches", "-o", "x.calib", "--resume")
    quantkit_command("calibrate", MODEL, "--data", "slow:batches", "-o", "whole.calib")
    assert (place / "x.stats.safetensors").read_bytes() == (place / "whole.stats.safetensors").read_bytes()


def test_an_exception_in_the_users_stream_comes_through(place: Path) -> None:
    def batches() -> Iterator[dict[str, Any]]:
        yield {"image": np.ones((2, 1, 16, 16), np.float32)}
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        quantkit.calibrate(MODEL, batches, output="x.calib")
    assert not list(place.glob("*x.*"))
