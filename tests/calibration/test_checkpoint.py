"""Checkpoints: what is damaged or cannot be is refused, and only a run that is complete removes one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

import quantkit
from quantkit import CalibrateOptions, DataOptions
from quantkit.calibration import calibrate as calibrating
from quantkit.calibration.checkpoint import DOCUMENT, KEY, Position, position_fault, write_checkpoint
from quantkit.data import Feed, open_data
from quantkit.errors import DataError, Interrupted, OutputError, StaleError, StatisticsError
from quantkit.preprocess import Preprocess
from quantkit.statistics.sealed import read_sealed
from quantkit.values import ModelInput
from tests.calibration.test_interruption import StopAfter

MODEL, PARTIAL = "net/model.onnx", "x.stats.partial"


def calibrate(data: Any = "imgs", *, stop_after: int | None = None, skip: bool = False, **options: Any) -> None:
    """A calibration in small batches with a checkpoint after each, which may be stopped."""
    reading = DataOptions(batch_size=8, skip_corrupt=skip)
    chosen = CalibrateOptions(data=reading, checkpoint_every=1, **options)
    progress = StopAfter(stop_after) if stop_after else None
    quantkit.calibrate(MODEL, data, output="x.calib", options=chosen, progress=progress)


@pytest.fixture
def interrupted(place: Path) -> Path:
    """The checkpoint of a run that was stopped after three batches."""
    with pytest.raises(Interrupted):
        calibrate(stop_after=3)
    return place / PARTIAL


def rewrite(path: Path, **changes: Any) -> None:
    """Write a checkpoint again with another position, sealed as it has to be."""
    file = read_sealed(path, KEY)
    document = DOCUMENT.parse(file.text, "")
    write_checkpoint(path, document.identity, document.position.model_copy(update=changes), file.arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": 10**6, "samples": 10**6, "batches": 125_000},
        {"stop": 61, "samples": 61, "batches": 8},
        {"stop": 8},
        {"samples": 16},
        {"batches": 4},
        {"batches": 1},
        {"batches": 0, "samples": 0, "stop": 0},
        {"pass_": 1},
        {"unreadable": ("a.png: broken",)},
    ],
    ids=str,
)
def test_a_position_that_the_data_do_not_have_is_refused(changes: dict[str, Any], interrupted: Path) -> None:
    rewrite(interrupted, **changes)
    before = interrupted.read_bytes()
    with pytest.raises(StatisticsError, match="is damaged: it "):
        calibrate(resume=True)
    assert interrupted.read_bytes() == before


@pytest.mark.parametrize("field", ["pass_", "stop", "batches", "samples"])
@pytest.mark.parametrize("value", [-1, 1 << 62, 1.5, "1", None])
def test_a_position_holds_counts(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Position.model_validate({field: value})


def test_a_folder_of_batches_has_no_more_positions_than_files(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x=np.ones((3, 4), np.float32))
    feed: Feed = open_data(tmp_path, [ModelInput("x", "float32", (None, 4))], Preprocess(), DataOptions())[0]
    assert position_fault(Position(stop=2, batches=2, samples=6), feed, 1) == ""
    assert "of 2" in position_fault(Position(stop=3, batches=3, samples=9), feed, 1)
    assert position_fault(Position(stop=1, batches=2, samples=6), feed, 1)


def test_a_flipped_bit_anywhere_is_damage(interrupted: Path) -> None:
    whole = interrupted.read_bytes()
    chosen = random.Random(0)
    for _ in range(5):
        content = bytearray(whole)
        content[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        interrupted.write_bytes(content)
        with pytest.raises(StatisticsError, match="is damaged"):
            calibrate(resume=True)


def test_a_checkpoint_without_a_digest_is_damaged(interrupted: Path) -> None:
    arrays, text = load(interrupted.read_bytes()), read_sealed(interrupted, KEY).text
    del arrays["sha256"]
    interrupted.write_bytes(save(arrays, {KEY: text}))
    with pytest.raises(StatisticsError, match="no digest"):
        calibrate(resume=True)


def test_arrays_of_another_shape_are_damage(interrupted: Path) -> None:
    file = read_sealed(interrupted, KEY)
    document = DOCUMENT.parse(file.text, "")
    arrays = {**file.arrays, "0/counts": np.zeros(2049, np.int64)}
    write_checkpoint(interrupted, document.identity, document.position, arrays)
    with pytest.raises(StatisticsError, match="is damaged"):
        calibrate(resume=True)


# ── kept and removed ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_run_does_not_replace_it_unasked(interrupted: Path) -> None:
    before = interrupted.read_bytes()
    with pytest.raises(StaleError, match="interrupted run") as refusal:
        calibrate()
    assert "--resume" in refusal.value.remedy
    assert "--force" in refusal.value.remedy
    assert interrupted.read_bytes() == before
    calibrate(force=True)
    assert not interrupted.exists()


def test_a_file_of_the_users_with_its_name_is_not_replaced(place: Path) -> None:
    (place / PARTIAL).write_text("mine")
    with pytest.raises(StaleError, match=r"x\.stats\.partial already exists"):
        calibrate()
    assert (place / PARTIAL).read_text() == "mine"


def test_a_call_that_was_wrong_keeps_it(place: Path) -> None:
    for folder, name in (("imgs", "5/0003.png"), ("other", "1.png")):
        (place / folder / name).parent.mkdir(exist_ok=True)
        (place / folder / name).write_bytes(b"broken")
    with pytest.raises(Interrupted):
        calibrate(stop_after=3, skip=True)
    before = (place / PARTIAL).read_bytes()
    for data in ("imgs", "other"):
        for options in ({"resume": True}, {}):
            with pytest.raises((DataError, StaleError)):
                calibrate(data, **options)
            assert (place / PARTIAL).read_bytes() == before
    calibrate(skip=True, resume=True)
    assert not (place / PARTIAL).exists()


# ── two runs at once ────────────────────────────────────────────────────────────────────────────────────────────────


class During(StopAfter):
    """Progress that does something else in the middle of a run."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__(10**6)
        self.action: Callable[[], None] | None = action

    def stopped(self) -> bool:
        """Do it once, then go on."""
        action, self.action = self.action, None
        if action:
            action()
        return False


@pytest.mark.parametrize("output", ["x.calib", "x.table"])
def test_a_second_run_with_the_same_files_is_refused(output: str, place: Path) -> None:
    def second() -> None:
        with pytest.raises(OutputError, match="is writing"):
            quantkit.calibrate(MODEL, "imgs", output=output, options=CalibrateOptions(force=True))

    quantkit.calibrate(MODEL, "imgs", output="x.calib", progress=During(second))
    assert quantkit.calibrate(MODEL, "imgs", output="x.calib").reused


def test_a_table_that_another_run_wrote_meanwhile_is_not_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = calibrating.check_pass_outputs

    def other_run(*arguments: Any) -> None:
        monkeypatch.setattr(calibrating, "check_pass_outputs", real)
        quantkit.calibrate(MODEL, "imgs", rules="minmax", output="x.calib")
        real(*arguments)

    monkeypatch.setattr(calibrating, "check_pass_outputs", other_run)
    with pytest.raises(StaleError, match=r"another run wrote x\.calib meanwhile"):
        quantkit.calibrate(MODEL, "imgs", output="x.calib")
    assert quantkit.calibrate(MODEL, "imgs", rules="minmax", output="x.calib").reused
