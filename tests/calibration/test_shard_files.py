"""Shards of a calibration as files: reused, refused, merged; whole or not there, whatever stops their process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import quantkit
from quantkit.calibration.shard_run import ShardCollector
from quantkit.errors import DataError, OutputError, ShardError, StaleError, UsageError
from tests.support.networks import Command, network

OPTIONS: dict[str, Any] = {"batch_size": 2}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a network and eleven samples for it."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["conv"]), helper.make_node("Relu", ["conv"], ["y"])]
    weights = {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3, 1, 1)}
    onnx.save(network(nodes, {"x": ["N", 3, 4, 4]}, ["y"], weights), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(11, 3, 4, 4)).astype(np.float32))
    return tmp_path


def shard(files: Path, text: str, place: Any = None, **changed: Any) -> quantkit.Calibration:
    """One shard of the calibration of the network."""
    output = files / "run" if place is None else place
    return quantkit.calibrate(files / "model.onnx", files / "x.npy", output=output, shard=text, **OPTIONS | changed)


def whole_bytes(files: Path) -> bytes:
    """The statistics file of the run that is not divided."""
    quantkit.calibrate(files / "model.onnx", files / "x.npy", output=files / "whole.calib", **OPTIONS)
    return (files / "whole.stats.safetensors").read_bytes()


def test_shards_in_a_folder_merge_to_the_file_of_one_run(files: Path) -> None:
    for index in (2, 0, 1):
        made = shard(files, f"{index}/3")
        assert made.files == (str(files / "run" / f"000{index}-of-0003.stats.safetensors"),)
        assert not made.tables
        with pytest.raises(UsageError, match="no table"):
            made.table  # noqa: B018
    (files / "run" / "notes.txt").write_text("other files are ignored")
    quantkit.merge(files / "run", files / "merged.safetensors")
    assert (files / "merged.safetensors").read_bytes() == whole_bytes(files)
    listed = sorted((files / "run").glob("*.safetensors"), reverse=True)
    quantkit.merge(listed, files / "again.safetensors")
    assert (files / "again.safetensors").read_bytes() == whole_bytes(files)


def test_a_damaged_shard_is_replaced_by_force(files: Path) -> None:
    path = Path(shard(files, "1/3").files[0])
    content = path.read_bytes()
    for other in (content[:-20], b"", whole_bytes(files)):
        path.write_bytes(other)
        with pytest.raises(StaleError, match=r"0001-of-0003") as caught:
            shard(files, "1/3")
        assert caught.value.remedy == "--force replaces it"
    shard(files, "1/3", force=True)
    assert path.read_bytes() == content


def test_shards_that_cannot_be_leave_no_folder(files: Path) -> None:
    with pytest.raises(UsageError, match="6 batches cannot be divided into 7 shards"):
        shard(files, "0/7")
    assert not (files / "run").exists()


def test_calibrate_takes_merged_statistics_instead_of_the_data(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_bytes(files)
    for index in range(3):
        shard(files, f"{index}/3")
    quantkit.merge(files / "run", files / "merged.stats.safetensors")
    monkeypatch.setattr("quantkit.calibration.calibrate.run_backend", None)
    made = quantkit.calibrate(
        files / "model.onnx", files / "x.npy", output=files / "merged.calib", rule="minmax,entropy", **OPTIONS
    )
    assert made.notes == ("the tables are made from the existing statistics, without the data",)
    assert (made.samples, made.batches, made.decoded) == (11, 6, False)
    assert made.tables["minmax"] == quantkit.tables_from(files / "whole.stats.safetensors", "minmax")["minmax"]
    again = quantkit.calibrate(
        files / "model.onnx", files / "x.npy", output=files / "merged.calib", rule="minmax,entropy", **OPTIONS
    )
    assert again.reused
    samples = np.load(files / "x.npy")
    np.save(files / "x.npy", samples + 1)
    with pytest.raises(StaleError, match="made with something else: data"):
        quantkit.calibrate(files / "model.onnx", files / "x.npy", output=files / "merged.calib", **OPTIONS)


def test_shards_under_a_url_merge_to_the_file_of_one_run(files: Path) -> None:
    pytest.importorskip("fsspec")
    place = f"memory://{files.name}/run"
    for index in range(3):
        assert shard(files, f"{index}/3", place).files == (f"{place}/000{index}-of-0003.stats.safetensors",)
    assert shard(files, "1/3", place).reused
    with pytest.raises(StaleError, match=r"batch size \(2, and 1\)"):
        shard(files, "1/3", place, batch_size=1)
    assert not shard(files, "1/3", place, force=True).reused
    quantkit.merge(place, files / "merged.safetensors")
    assert (files / "merged.safetensors").read_bytes() == whole_bytes(files)


def test_shards_in_a_store_merge_to_the_file_of_one_run(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = pytest.importorskip("tests.support.object_stores")
    with stores.s3_store(monkeypatch) as bucket:
        for index in range(2):
            shard(files, f"{index}/2", f"{bucket}/run")
        assert shard(files, "0/2", f"{bucket}/run").reused
        quantkit.merge(f"{bucket}/run", files / "merged.safetensors")
        with pytest.raises(DataError, match="s3://none/run"):
            shard(files, "0/2", "s3://none/run")
    assert (files / "merged.safetensors").read_bytes() == whole_bytes(files)


def test_a_shard_that_is_there_is_reused_or_refused(files: Path) -> None:
    first = shard(files, "1/3")
    content = Path(first.files[0]).read_bytes()
    again = shard(files, "1/3")
    assert again.reused
    assert again.notes == ("nothing changed: the existing shard is reused",)
    assert (again.samples, again.batches) == (first.samples, first.batches) == (4, 2)
    with pytest.raises(StaleError, match=r"0001-of-0003.stats.safetensors is of another run: preprocessing"):
        shard(files, "1/3", preprocess=quantkit.PRESETS["unit"].model_copy(update={"size": (4, 4)}))
    samples = np.load(files / "x.npy")
    np.save(files / "x.npy", samples)
    assert shard(files, "1/3").reused, "another time of change, and the same content"
    samples[0] += 1
    np.save(files / "x.npy", samples)
    assert shard(files, "1/3").reused, "a sample of another shard changed"
    samples[5] += 1
    np.save(files / "x.npy", samples)
    with pytest.raises(StaleError, match="made of other data"):
        shard(files, "1/3")
    assert Path(first.files[0]).read_bytes() == content
    assert not shard(files, "1/3", force=True).reused
    assert Path(first.files[0]).read_bytes() != content


def test_faulty_places_are_refused(files: Path) -> None:
    shard(files, "0/2")
    with pytest.raises(ShardError, match="1 of 2 shards is missing"):
        quantkit.merge(files / "run", files / "merged.safetensors")
    (files / "empty").mkdir()
    with pytest.raises(ShardError, match="empty holds no shards"):
        quantkit.merge(files / "empty", files / "merged.safetensors")
    made = files / "run" / "0000-of-0002.stats.safetensors"
    made.with_name("0001-of-0002.stats.safetensors").write_bytes(made.read_bytes())
    with pytest.raises(ShardError, match=r"0001-of-0002.stats.safetensors holds shard 0/2"):
        quantkit.merge(files / "run", files / "merged.safetensors")
    whole_bytes(files)
    with pytest.raises(ShardError, match=r"whole.stats.safetensors is no shard"):
        quantkit.merge([made, files / "whole.stats.safetensors"], files / "merged.safetensors")
    with pytest.raises(OutputError, match=r"model.onnx is a file"):
        shard(files, "0/2", files / "model.onnx")
    assert not (files / "merged.safetensors").exists()


def test_a_table_is_not_written_to_a_url(files: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write a calibration table to memory://x/model.calib"):
        quantkit.calibrate(files / "model.onnx", files / "x.npy", output="memory://x/model.calib")


@pytest.mark.parametrize("option", ["resume", "learning_curve"])
def test_what_needs_the_whole_run_is_refused(files: Path, option: str) -> None:
    with pytest.raises(UsageError, match="needs the whole run"):
        shard(files, "0/2", **{option: True})


def test_the_command_tells_what_is_there(
    files: Path, quantkit_command: Command, quantkit_json: Callable[..., Any]
) -> None:
    words = ["calibrate", "model.onnx", "--data", "x.npy", "--batch-size", "2", "-o", "a run"]
    done = quantkit_command(*words, "--shard", "1/2")
    assert "shard       1/2, batches 3 to 5 of the run" in done.stdout
    assert "1 of 2 shards is there" in done.stdout
    assert quantkit_json(*words, "--shard", "0/2")["shard"] == "0/2"
    done = quantkit_command(*words, "--shard", "0/2")
    assert "all shards are there; merge them: quantkit stats merge 'a run' -o" in done.stdout
    assert "shard      1/2" in quantkit_command("stats", "show", "a run/0001-of-0002.stats.safetensors").stdout
    done = quantkit_command("stats", "merge", "a run", "-o", "merged.stats.safetensors")
    assert "11 samples" in done.stdout
    assert quantkit_command("stats", "table", "merged.stats.safetensors", "-o", "model.calib").returncode == 0
    assert "--rule has no effect" in quantkit_command(*words, "--shard", "0/2", "--rule", "mse", code=2).stderr
    assert json.loads(quantkit_command(*words, "--shard", "0/2", "--json").stdout)["reused"]


SLOW = """
import sys, time
import quantkit
from quantkit.progress import NoProgress

class Slow(NoProgress):
    def advance(self, samples):
        print("batch", flush=True)
        time.sleep(float(sys.argv[1]))

options = {"batch_size": 2}
quantkit.calibrate("model.onnx", "x.npy", output="run", shard="0/2", progress=Slow(), **options)
"""


def started(files: Path, pause: float) -> subprocess.Popen[str]:
    """A process that runs the first shard, which has counted its first batch."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(pause)],
        cwd=files,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "batch\n"
    return process


@pytest.mark.parametrize("is_there", [False, True])
def test_a_shard_that_fails_leaves_no_folder_of_its_own(
    files: Path, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DataError("a sample cannot be read", remedy="fix it")

    monkeypatch.setattr(ShardCollector, "collect", fail)
    if is_there:
        (files / "run").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        shard(files, "0/2")
    assert (files / "run").exists() == is_there
    assert not is_there or list((files / "run").iterdir()) == []


def test_a_killed_shard_leaves_nothing(files: Path) -> None:
    process = started(files, 60)
    with pytest.raises(OutputError, match=r"another process is writing .*0000-of-0002"):
        shard(files, "0/2")
    assert not shard(files, "1/2").reused, "other shards are not held up"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.name for path in (files / "run").glob("*.safetensors")] == ["0001-of-0002.stats.safetensors"]
    assert not shard(files, "0/2").reused
    assert sorted(path.name for path in (files / "run").iterdir()) == [
        "0000-of-0002.stats.safetensors",
        "0001-of-0002.stats.safetensors",
    ]
    quantkit.merge(files / "run", files / "merged.safetensors")
    assert (files / "merged.safetensors").read_bytes() == whole_bytes(files)


def test_two_processes_that_make_the_same_shard_leave_one_whole_file(files: Path) -> None:
    words = [sys.executable, "-c", SLOW, "0"]
    both = [
        subprocess.Popen(words, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    texts = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0, texts
    assert codes[1] == 0 or any("another process is writing" in text for text in texts), texts
    assert [path.name for path in (files / "run").iterdir()] == ["0000-of-0002.stats.safetensors"]
    assert shard(files, "0/2").reused


def test_merging_says_how_many_samples_the_shards_left_out(
    files: Path, quantkit_command: Command, quantkit_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    (files / "images").mkdir()
    for number in range(6):
        picture = Image.new("RGB", (4, 4), (40 * number, 7, 9))
        picture.save(files / "images" / f"{number}.png")
    for number in (1, 4):
        (files / "images" / f"{number}.png").write_bytes(b"no image")
    options = {"skip_corrupt": True, "histogram": "invariant", **OPTIONS}
    for index in range(3):
        quantkit.calibrate("model.onnx", "images", output="run", shard=f"{index}/3", **options)
    done = quantkit_command("stats", "merge", "run", "-o", "merged.safetensors")
    assert "2 samples cannot be read and were left out" in done.stderr
    assert ": 4 samples" in done.stdout
    skipped = quantkit_json("stats", "merge", "run", "-o", "again.safetensors")["skipped"]
    assert [text.split(":")[0] for text in skipped] == ["1.png", "4.png"]
