"""How fast data streams into a calibration: beside decoding alone, pinned arrays, and Polygraphy's calibrator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt as trt
from onnx import TensorProto, helper
from PIL import Image

import quantkit
from acceptance.scripts import build
from quantkit import DataOptions
from quantkit.backends.tensorrt.device import open_device
from quantkit.calibration.tensorrt import EntropyCalibrator2
from quantkit.calibration.tensorrt.calibrators import MOST_THREADS, usable_cores
from quantkit.data import open_data
from quantkit.data.pixels import decode
from quantkit.graph import load_model
from quantkit.preprocess import resolve_spec

IMAGES = 4096
BATCH = 64
SHAPE = (BATCH, 3, 224, 224)
AHEAD = "Polygraphy, read ahead by quantkit"


def network(path: Path) -> Path:
    """One MaxPool, where TensorRT itself is quick."""
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["image"], ["out"], name="pool", kernel_shape=[2, 2], strides=[2, 2])],
        "pool",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, 112, 112])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def photographs(folder: Path, count: int) -> Path:
    """JPEG files of 500×400 with the detail of a photograph: noise of several scales."""
    folder.mkdir()

    def one(number: int) -> None:
        random = np.random.default_rng(number)
        picture = np.zeros((400, 500, 3))
        for cells, weight in ((4, 90), (16, 50), (64, 25), (200, 12)):
            coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += weight / 255 * np.asarray(coarse.resize((500, 400), Image.Resampling.BICUBIC), np.float64)
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(one, range(count)))
    return folder


class FromPinned(trt.IInt8EntropyCalibrator2):
    """The least a calibrator can do: copy a batch that lies in pinned memory, and wait."""

    def __init__(self, batches: list[Any]) -> None:
        trt.IInt8EntropyCalibrator2.__init__(self)
        self.device = open_device()
        self.batches = iter(batches)
        with self.device.current():
            self.stream = self.device.stream()
            self.buffer = self.device.buffer(batches[0].nbytes)

    def get_batch_size(self) -> int:
        return BATCH

    def get_batch(self, names: list[str]) -> list[int] | None:
        del names
        batch = next(self.batches, None)
        if batch is None:
            return None
        with self.device.current():
            self.stream.upload(self.buffer, batch)
            self.stream.synchronize()
        return [self.buffer.address]

    def read_calibration_cache(self) -> None:
        return None

    def write_calibration_cache(self, cache: Any) -> None:
        self.table = bytes(cache)


def portions(model: Path, folder: Path, workers: int) -> Any:
    """The same decoding for everybody."""
    spec = quantkit.PRESETS["imagenet"]
    options = DataOptions(limit=IMAGES, batch_size=BATCH, threads=workers)
    feed, _ = open_data(folder, load_model(model).inputs, spec, options)
    return feed.portions()


def batch_by_batch(model: Path, folder: Path, workers: int) -> Iterator[dict[str, Any]]:
    """A `load_data` as it is written for Polygraphy: the same decoder, on all cores, when a batch is asked for."""
    spec = resolve_spec(quantkit.PRESETS["imagenet"], load_model(model).inputs[0])
    names = sorted(folder.iterdir())

    def one(path: Path) -> Any:
        return decode(path.read_bytes(), spec)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(names), BATCH):
            yield {"image": np.stack(list(pool.map(one, names[start : start + BATCH])))}


def seconds(work: Any) -> float:
    """Wall clock."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def measured(folder: Path) -> dict[str, Any]:
    """Everything in one process, twice, the better time of each."""
    from polygraphy.backend.trt import Calibrator

    model = network(folder / "pool.onnx")
    images = photographs(folder / "photographs", IMAGES)
    sizes = [entry.stat().st_size for entry in os.scandir(images)]
    device = open_device()
    pinned = []
    threads = min(MOST_THREADS, usable_cores())  # as the calibrators have
    for portion in portions(model, images, threads):
        room = device_array(device, portion.batch["image"])
        pinned.append(room)
    memory: list[int] = []

    def decode(workers: int) -> None:
        for _ in portions(model, images, workers):
            pass

    def from_pinned() -> None:
        build(model, FromPinned(pinned), SHAPE)

    def ours() -> None:
        calibrator = EntropyCalibrator2(model, images, preprocess="imagenet", batch_size=BATCH, limit=IMAGES)
        build(model, calibrator, SHAPE)
        memory.append(calibrator.streaming.device_bytes)

    def polygraphys(feeds: Iterator[dict[str, Any]]) -> None:
        calibrator = Calibrator(data_loader=feeds, BaseClass=trt.IInt8EntropyCalibrator2)
        calibrator.set_input_metadata(metadata())
        with calibrator:
            build(model, calibrator, SHAPE)

    works = {
        f"decoding alone, {threads} threads": partial(decode, threads),
        f"decoding alone, {usable_cores()} threads": partial(decode, usable_cores()),
        "from pinned arrays": from_pinned,
        "quantkit": ours,
        "Polygraphy": lambda: polygraphys(batch_by_batch(model, images, usable_cores())),
        AHEAD: lambda: polygraphys({"image": p.batch["image"]} for p in portions(model, images, threads)),
    }
    times = {name: min(seconds(work) for _ in range(2)) for name, work in works.items()}
    fastest = min(value for name, value in times.items() if name.startswith("decoding alone"))
    on_all = times[f"decoding alone, {usable_cores()} threads"]
    floor = max(on_all, times["from pinned arrays"])
    return {
        "images": IMAGES,
        "mean_kilobytes": round(float(np.mean(sizes)) / 1000, 1),
        "cores": usable_cores(),
        "seconds": {name: round(value, 3) for name, value in times.items()},
        "ratio_to_floor": round(times["quantkit"] / floor, 3),
        "ratio_to_fastest_decoding": round(times["quantkit"] / max(fastest, times["from pinned arrays"]), 3),
        "ratio_to_polygraphy": round(times["quantkit"] / times["Polygraphy"], 3),
        "ratio_to_polygraphy_read_ahead": round(times["quantkit"] / times[AHEAD], 3),
        "input_batch_bytes": int(np.prod(SHAPE)) * 4,
        "device_bytes": memory[-1],
    }


def device_array(device: Any, batch: Any) -> Any:
    """A copy in pinned memory."""
    with device.current():
        room = device.pinned(batch.nbytes).view(batch.dtype).reshape(batch.shape)
    room[...] = batch
    return room


def metadata() -> Any:
    """What Polygraphy wants to know about the input."""
    from polygraphy.common import TensorMetadata

    return TensorMetadata().add("image", np.float32, SHAPE)
