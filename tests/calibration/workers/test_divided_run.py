"""Calibration by workers: the bytes of one run, whatever is killed, and one command that goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import quantkit
from quantkit.errors import DataError, Interrupted, StaleError, UsageError
from quantkit.histogram import HistogramMode
from tests.support.networks import BUNDLED
from tests.support.stopping import StopAfterSamples

MODES = [mode.value for mode in HistogramMode]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a network, its preprocessing, and 48 images."""
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, tmp_path)
    drawn = np.random.default_rng(7)
    (tmp_path / "images").mkdir()
    for number in range(48):
        Image.fromarray(drawn.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path


def calibrated(place: Path, name: str, **options: Any) -> tuple[bytes, bytes]:
    """The bytes of table and statistics."""
    options = {"batch_size": 4, "backend": "onnxruntime", **options}
    quantkit.calibrate(place / "model.onnx", place / "images", output=place / f"{name}.calib", **options)
    return (place / f"{name}.calib").read_bytes(), (place / f"{name}.stats.safetensors").read_bytes()


@pytest.mark.parametrize("histogram", MODES)
def test_one_two_and_three_workers_give_the_bytes_of_one_run(place: Path, histogram: str) -> None:
    whole = calibrated(place, "whole", histogram=histogram)
    for workers in (1, 3) if histogram == "tensorrt" else (2,):
        assert calibrated(place, f"by{workers}", histogram=histogram, workers=workers) == whole
        assert not (place / f"by{workers}.calib.shards").exists()
    last = f"by{3 if histogram == 'tensorrt' else 2}"
    records = [quantkit.provenance.read_provenance(place / f"{name}.calib.json") for name in ("whole", last)]
    assert records[0] is not None
    assert records[1] is not None
    assert (records[0].data, records[0].run) == (records[1].data, records[1].run), (
        "identity and order are known as well"
    )


def test_the_same_command_goes_on_and_another_one_is_refused(place: Path) -> None:
    whole = calibrated(place, "whole")
    with pytest.raises(Interrupted, match=r"stopped after \d+ of 12 shards") as stopped:
        calibrated(place, "out", workers=2, progress=StopAfterSamples(12))
    assert stopped.value.remedy == "the same command goes on"
    done = len(list((place / "out.calib.shards").iterdir()))
    assert 3 <= done < 12
    with pytest.raises(StaleError, match="shards of an interrupted run that differs: histogram"):
        calibrated(place, "out", workers=2, histogram="invariant")
    with pytest.raises(StaleError, match="holds the shards of an interrupted run"):
        calibrated(place, "out")
    again = StopAfterSamples()
    assert calibrated(place, "out", workers=1, progress=again) == whole, "also with another number of workers"
    assert (again.begun, again.counted) == ([(48, 4 * done)], 48 - 4 * done), "only what was missing ran"
    assert not (place / "out.calib.shards").exists()


def test_a_folder_of_shards_of_the_user_is_left_alone(place: Path) -> None:
    made = quantkit.calibrate(
        place / "model.onnx", place / "images", output=place / "out.shards", shard="1/3", batch_size=4
    )
    assert any(note.startswith("48 samples are few") for note in made.notes), "those of the run"
    for workers in (1, None):
        calibrated(place, "out", workers=workers, force=True)
    assert [path.name for path in (place / "out.shards").iterdir()] == ["0001-of-0003.stats.safetensors"]


@pytest.mark.parametrize("workers", [None, 1])
def test_force_starts_again_where_another_run_was_interrupted(place: Path, workers: int | None) -> None:
    with pytest.raises(Interrupted):
        calibrated(place, "out", workers=1, histogram="invariant", progress=StopAfterSamples(8))
    assert calibrated(place, "out", workers=workers, force=True) == calibrated(place, "whole")
    assert not (place / "out.calib.shards").exists()


@pytest.mark.parametrize("histogram", MODES)
def test_a_sample_that_changed_is_counted_again(place: Path, histogram: str) -> None:
    """With the others that depend on it: in TensorRT's mode, the first batch settles the ranges of all."""
    with pytest.raises(Interrupted):
        calibrated(place, "out", workers=1, histogram=histogram, progress=StopAfterSamples(8))
    done = len(list((place / "out.calib.shards").iterdir()))
    Image.fromarray(np.full((16, 16), 200, np.uint8)).save(place / "images" / "01.png")
    again = StopAfterSamples()
    changed = calibrated(place, "out", workers=1, histogram=histogram, progress=again)
    assert changed == calibrated(place, "whole", histogram=histogram)
    assert again.begun[0] == (48, 4 * (done - 1))


def test_an_unreadable_image_is_one_line_with_file_shard_and_host(place: Path) -> None:
    (place / "images" / "30.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"shard 7/12 on .*: 1 of 4 samples cannot be read") as refused:
        calibrated(place, "out", workers=2)
    assert "30.png" in str(refused.value)
    assert calibrated(place, "out", workers=1, histogram="invariant", skip_corrupt=True, force=True) == calibrated(
        place, "whole", histogram="invariant", skip_corrupt=True
    )


def test_without_an_output_nothing_is_left(place: Path) -> None:
    found = quantkit.calibrate(place / "model.onnx", place / "images", workers=1, batch_size=4)
    alone = quantkit.calibrate(place / "model.onnx", place / "images", batch_size=4)
    assert found.statistics is not None
    assert alone.statistics is not None
    assert [note for note in alone.notes if "samples are few" in note]
    assert set(alone.notes) <= set(found.notes)
    assert quantkit.statistics.statistics_bytes(found.statistics) == quantkit.statistics.statistics_bytes(
        alone.statistics
    )
    assert sorted(path.name for path in place.iterdir()) == ["images", "model.onnx", "preprocess.toml"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 2, "resume": True}, "resume=True is not for workers"),
        ({"workers": 2, "learning_curve": True}, "learning_curve=True is not for workers"),
        ({"on": "spark"}, "on='spark' is no Ray cluster"),
        ({"workers": 2, "gpus_per_worker": 1}, "gpus_per_worker= is for Ray"),
        ({"workers": 2, "backend": "tensorrt", "rule": "entropy"}, "run in one process"),
    ],
)
def test_what_workers_cannot_do_is_refused(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrated(place, "out", **options)


def test_a_stream_cannot_be_divided(place: Path) -> None:
    batches = [{"image": np.zeros((2, 1, 16, 16), np.float32)}]
    with pytest.raises(DataError, match="cannot be divided into shards"):
        quantkit.calibrate(place / "model.onnx", batches, workers=2)


def processes_of(mark: str) -> dict[int, str]:
    """The processes that a command has started, itself included, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("seed", [1])
def test_a_worker_and_then_the_command_are_killed_and_the_same_command_ends_with_the_same_bytes(
    place: Path, seed: int
) -> None:
    """At random moments; where a run is too quick, nothing is left to kill, and the bytes are there."""
    drawn = random.Random(seed)
    whole = calibrated(place, "whole", batch_size=1)
    line = [sys.executable, "-m", "quantkit", "calibrate", "model.onnx", "--data", "images", "--batch-size", "1"]
    line += ["--workers", "2", "--backend", "onnxruntime", "-q", "-o", "out.calib"]
    mark = f"QUANTKIT_TEST_MARK={place}"
    environment = {**os.environ, "QUANTKIT_TEST_MARK": str(place)}
    command = subprocess.Popen(line, cwd=place, env=environment)
    while command.poll() is None and len(list(place.glob("out.calib.shards/*.safetensors"))) < drawn.randint(0, 20):
        time.sleep(0.01)
    for process, text in processes_of(mark).items():
        if "executors.worker" in text:
            os.kill(process, signal.SIGKILL)
            break
    time.sleep(drawn.uniform(0, 0.5))
    command.kill()
    command.wait()
    while processes_of(mark):
        time.sleep(0.02)
    subprocess.run(line, cwd=place, env=environment, check=True)
    assert ((place / "out.calib").read_bytes(), (place / "out.stats.safetensors").read_bytes()) == whole
    assert not list(place.glob(".quantkit*"))
    assert not (place / "out.calib.shards").exists()
