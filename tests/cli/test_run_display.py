"""The progress of a run: every step with its count and time on a terminal, few plain lines elsewhere."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.cli.terminal.bars import draw_bar, format_duration
from quantkit.cli.terminal.run_display import RunDisplay
from quantkit.progress import PlannedStep
from tests.support.terminal import Screen, record

STEPS = (
    PlannedStep("statistics", "512 samples"),
    PlannedStep("model"),
    PlannedStep("layers", "128 samples"),
    PlannedStep("report", "10,000 samples, 3 models"),
)


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> RunDisplay:
    """A display on a terminal, with the steps."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    display = RunDisplay(silent=False, clock=clock)
    display.planned(STEPS)
    return display


def test_every_step_shows_what_it_does_and_how_long(live: RunDisplay, clock: Clock) -> None:
    live.begin("statistics")
    live.forecast({"model": 30.0, "layers": 60.0, "report": 400.0, "no step": 1.0})
    live.end("statistics", 8.06, reused=False)
    clock.now = 10.0
    live.begin("model")
    live.phases("round")
    clock.now = 14.0
    live.phases.count(3, 12)
    lines = live.rows(80, 24)
    assert [" ".join(line.split()) for line in lines] == [
        "✓ statistics 512 samples 8.1 s",
        lines[1].split()[0] + " model round ━━━━━━────────────────── 3/12 12 s left",
        "· layers 128 samples about 1 min",
        "· report 10,000 samples, 3 models about 6 min 40 s",
        "step 2 of 4, 14 s so far, about 7 min 52 s left; --val-limit takes fewer",
    ]
    assert {len(line) for line in lines[:4]} == {80}


def test_a_phase_without_a_count_shows_its_time_and_a_reused_step_none(live: RunDisplay, clock: Clock) -> None:
    live.end("statistics", 0.0, reused=True)
    live.begin("model")
    live.phases("inserting Q/DQ")
    before = live.rows(80, 24)
    clock.now = 12.0
    after = live.rows(80, 24)
    assert before[0].split() == ["✓", "statistics", "512", "samples", "reused"]
    assert after[1].split()[1:] == ["model", "inserting", "Q/DQ", "12", "s"]
    assert before[1] != after[1]


@given(st.integers(20, 200), st.integers(3, 40), st.integers(0, 3), st.integers(0, 10**6), st.floats(0, 1e6))
def test_the_block_fits_the_terminal(width: int, height: int, at: int, done: int, seconds: float) -> None:
    clock = Clock()
    display = RunDisplay(silent=True, clock=clock)
    display.planned(STEPS)
    for step in STEPS[:at]:
        display.end(step.name, seconds, reused=False)
    display.begin(STEPS[at].name)
    display.phases("a phase whose name is long enough to leave no room for a bar")
    display.phases.count(done, 10**6)
    display.forecast({step.name: seconds for step in STEPS})
    clock.now = seconds
    lines = display.rows(width, height)
    assert len(lines) == min(height, len(STEPS) + 1)
    assert max(map(len, lines)) <= width
    assert any(STEPS[at].name[: width - 2] in line for line in lines)


def test_without_a_terminal_there_are_few_plain_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay(silent=False, clock=clock) as display:
        display.planned(STEPS)
        display.begin("statistics")
        display.forecast({"report": 400.0})
        display.end("statistics", 8.0, reused=False)
        display.end("model", 0.0, reused=True)
        clock.now = 8.0
        display.begin("report")
        for done in range(0, 10_000, 100):
            clock.now = 8 + done / 50
            display.phases.count(done, 10_000)
    assert capsys.readouterr().err.splitlines() == [
        "4 steps: statistics, model, layers, report",
        "step 1 of 4: statistics, 512 samples",
        "step 4 of 4: report, 10,000 samples, 3 models, about 6 min 40 s",
        "    report: about 3 min 16 s left",
    ]


@pytest.mark.parametrize(("clean", "again"), [(False, "the same command"), (True, "the same command without --clean")])
def test_an_interrupted_run_says_how_to_continue(
    clean: bool, again: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    display = RunDisplay(silent=False, clean=clean, clock=clock)
    display.planned(STEPS)
    display.end("statistics", 8.0, reused=False)
    display.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err.endswith(f"1 of 4 steps are done and kept: {again} continues after them\n")


def test_silence_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay(silent=True, clock=clock) as display:
        display.planned(STEPS)
        display.begin("statistics")
        display.phases.count(1, 2)
    assert capsys.readouterr() == ("", "")


@given(st.floats(0, 1e6))
def test_durations_are_read_back(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    words = format_duration(seconds).split()
    found = sum(float(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert found == pytest.approx(seconds, abs=30.6 if seconds >= 3600 else 0.51)


@given(st.floats(-1, 2), st.integers(0, 40))
def test_a_bar_has_its_size(share: float, size: int) -> None:
    bar = draw_bar(share, size)
    assert len(bar) == size
    assert bar.count("━") == round(min(max(share, 0), 1) * size)


RUN = ["run", "model.onnx", "--data", "images", "--val", "test", "--val-limit", "64", "--limit", "64", "--no-compile"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with the bundled network and its images."""
    data = Path(__file__).parents[2] / "calibration_data"
    for name in ("model.onnx", "preprocess.toml", "images", "test"):
        (tmp_path / name).symlink_to(data / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_run_on_a_terminal_moves_all_the_time_and_leaves_only_the_summary(place: Path) -> None:
    code, frames, screen = record([*RUN, "--output", "out"], place, columns=80, lines=24)
    assert code == 0
    bars = {line.split()[1] for frame in frames for line in frame if "━" in line}
    assert {"model", "layers"} <= bars, "these take long enough to show a count"
    shown = {line for frame in frames for line in frame if line.startswith("step ")}
    places = {tuple(map(int, line.split(",")[0].split()[1::2])) for line in shown}
    count = max(of for _, of in places)
    every = {(number, count) for number in range(1, count + 1)}
    assert {(1, count), (count, count)} <= places <= every, "a step may be shorter than a frame"
    moved = [before != after for before, after in itertools.pairwise(frames)]
    assert sum(moved) > 0.9 * len(moved), "a frame is another one than that before"
    assert any("64 samples, 3 models" in line for frame in frames for line in frame)
    assert not any("step " in line or "━" in line for line in screen)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_ends_a_run_and_keeps_what_is_done(place: Path) -> None:
    def press(screen: Screen, pid: int) -> bool:
        ready = any("model" in line and "━" in line for line in screen.lines)
        if ready:
            os.kill(pid, signal.SIGINT)
        return ready

    code, _, screen = record([*RUN, "--output", "out"], place, columns=80, lines=24, react=press)
    assert code == 130
    assert screen[0].startswith("2 of ")
    assert screen[0].endswith(" steps are done and kept: the same command continues after them")
    assert screen[1:] == ["quantkit: interrupted"]
    assert sorted(path.name.rpartition("-")[0] for path in (place / "out/steps").iterdir() if path.is_dir()) == [
        "statistics",
        "table",
    ]
    assert not list((place / "out").glob(".quantkit*"))
