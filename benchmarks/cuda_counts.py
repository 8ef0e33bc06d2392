"""Calibration on a GPU: equal counts, and its speed beside the CPU and plain onnxruntime. Writes cuda_counts.json.

    python benchmarks/cuda_counts.py FOLDER [--images N] [--golden DIR] [--sections equal,floor,gpu,cpu,two]

Needs onnxruntime-gpu, CuPy and a GPU; FOLDER for the network (resnet50's architecture, exported with torch and timm if
it is not there), and for JPEG images made on the fly. DIR: golden/distributions, with make.py.

    equal   the same activations counted on the GPU and by the C kernel: every count and every sum, in both modes
    floor   plain onnxruntime on the same GPU: the same outputs, bound on the device, nothing counted, TF32 off
    gpu     quantkit calibrate --provider cuda: end to end from JPEG files, and where the time goes
    cpu     the same on the CPU, on fewer images
    two     two processes with a GPU each, and half of the data (--shard)

Images per second are those of the last three quarters of a run: opening the network is reported on its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import quantkit  # noqa: E402
from quantkit.backends.onnxruntime import gpu_runner, inference  # noqa: E402
from quantkit.backends.session import usable_cores  # noqa: E402
from quantkit.calibration import memory_plan  # noqa: E402
from quantkit.calibration.counting.device_runs import DeviceRuns  # noqa: E402
from quantkit.gpu_counting.tables import DeviceTensor  # noqa: E402
from quantkit.graph import load_model, watched_tensors  # noqa: E402
from quantkit.histogram import HistogramMode  # noqa: E402
from quantkit.progress import NoProgress  # noqa: E402
from quantkit.statistics import Collector  # noqa: E402
from quantkit.values import Array, Batch  # noqa: E402

SIDE, BATCH, MEMORY = 224, 64, 32 << 30
MODES = tuple(HistogramMode)


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────────


def network(folder: Path) -> Path:
    """The network, exported once."""
    path = folder / "resnet50.onnx"
    if not path.exists():
        from placements.networks import NETWORKS, export_network

        export_network(NETWORKS["resnet50"], path)
    return path


def make_images(folder: Path, count: int) -> Path:
    """JPEG files of coarse noise, all different."""
    from PIL import Image

    folder.mkdir(exist_ok=True)

    def make(i: int) -> None:
        coarse = np.random.default_rng(i).integers(0, 256, (14, 14, 3), np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(make, range(count)))
    return folder


# ── equal counts ────────────────────────────────────────────────────────────────────────────────────────────────────


class UploadedArrays:
    """A runner that only copies its feeds to the GPU."""

    def __init__(self) -> None:
        from quantkit.gpu_counting.cupy_device import CupyDevice

        self.device, self._feeds, self._held = CupyDevice(0), {}, []

    def __call__(self, feeds: Batch) -> Mapping[str, DeviceTensor]:
        self._feeds, self._held = feeds, {n: self.device.copy_in(x) for n, x in feeds.items()}
        return {n: DeviceTensor(self._held[n].pointer, x.shape, x.dtype.name) for n, x in feeds.items()}

    def fetch(self, name: str) -> Array:
        return self._feeds[name]


def differences(there: Collector, here: Collector) -> dict[str, Any]:
    """How many numbers of two collectors are compared, and which arrays differ.

    A tensor that no scale can represent, such as a float16 one with Inf, has counts up to then, and no channels.
    """
    assert there.unscalable == here.unscalable
    a, b = ({k: x for k, x in c.dump().items() if k.split("/")[-1].split("@")[0] not in c.unscalable}
            for c in (there, here))  # fmt: skip
    assert a.keys() == b.keys()
    return {
        "values counted": int(b["counts"].sum()),
        "numbers compared": int(sum(x.size for x in b.values())),
        "arrays that differ": [key for key in a if not np.array_equal(a[key], b[key], equal_nan=True)],
        "tensors without a scale": list(here.unscalable),
    }


def as_type(values: Array, dtype: str) -> Array:
    """The values in another type, where some may be infinite."""
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def equal_distributions(folder: Path) -> Iterator[tuple[str, Any]]:
    """Golden distributions, as float32, float16 and float64."""
    made = importlib.util.spec_from_file_location("make", folder / "make.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    for dtype in ("float32", "float16", "float64"):
        batches = [{n: as_type(x, dtype) for n, x in batch.items()} for batch in module.batches("A")]
        names = tuple(batches[0])
        for mode in MODES:
            views = [(name, axis) for name in names for axis in (1, 2, 3)]
            here, there = (Collector(names, views, mode, names) for _ in range(2))
            runs = DeviceRuns(UploadedArrays(), there)
            for batch in batches:
                runs.run(batch, again=False)
                runs.count(whole=True)
                for name, x in batch.items():
                    here.count(name, x, whole=True)
                assert here.end_batch() == there.end_batch()
            runs.flush()
            yield f"distributions, {dtype}, {mode.value}", differences(there, here)


def equal_activations(path: Path) -> Iterator[tuple[str, Any]]:
    """Every activation of the network, on three batches of growing contrast."""
    model = load_model(path)
    watch = watched_tensors(model)
    session = inference.OnnxRuntimeSession(model, watch.tensors, provider="cuda", fixed_shapes=True)
    for mode in MODES:
        views = [(view.tensor, view.axis) for view in watch.channels]
        here, there = (Collector(watch.tensors, views, mode, watch.tensors) for _ in range(2))
        runner = session.resident()
        runs = DeviceRuns(runner, there)
        for number in range(3):
            images = np.random.default_rng(number).normal(0, 1 + number, (8, 3, SIDE, SIDE)).astype(np.float32)
            for part in np.split(images, 2) if mode is HistogramMode.INVARIANT else [images]:
                whole = len(part) == len(images)
                runs.run({"image": part}, again=False)
                for name in watch.tensors:
                    here.count(name, runner.fetch(name), whole=whole)
                runs.count(whole=whole)
            assert here.end_batch() == there.end_batch()
        runs.flush()
        yield f"resnet50, {len(watch.tensors)} tensors, {len(views)} views, {mode.value}", differences(there, here)


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def plain_onnxruntime(path: Path, batch: int, seconds: float = 1.5, **cuda: str) -> dict[str, Any]:
    """Milliseconds of a batch whose outputs are all bound on the GPU."""
    import cupy
    import onnxruntime

    model = load_model(path)
    tensors = [name for name in watched_tensors(model).tensors if name != "image"]
    gpu_runner.load_cuda_libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    given = {"device_id": "0", "use_tf32": "0", **cuda}
    session = onnxruntime.InferenceSession(
        inference.with_outputs(model, tensors), options, providers=[("CUDAExecutionProvider", given)]
    )
    binding = session.io_binding()
    images = np.random.default_rng(0).normal(0, 1, (batch, 3, SIDE, SIDE)).astype(np.float32)
    there = cupy.asarray(images)
    binding.bind_input("image", "cuda", 0, np.float32, images.shape, there.data.ptr)
    for name in tensors:
        binding.bind_output(name, "cuda", 0)
    found = {}
    for kind in ("input on the GPU", "input copied each time"):
        times = []
        session.run_with_iobinding(binding)
        started = time.monotonic()
        while time.monotonic() - started < seconds or len(times) < 3:
            at = time.monotonic()
            if kind != "input on the GPU":
                there.set(images)
                cupy.cuda.get_current_stream().synchronize()
            session.run_with_iobinding(binding)
            times.append(time.monotonic() - at)
        median = float(np.median(times))
        found[kind] = {"ms": round(1e3 * median, 2), "images_per_second": round(batch / median, 1)}
    return {**found, "outputs": len(tensors)}


class Clock(NoProgress):
    """A progress that notes when samples were counted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []

    def advance(self, count: int) -> None:
        self.seen.append((time.monotonic(), (self.seen[-1][1] if self.seen else 0) + count))

    def rate(self) -> float:
        """Samples per second of the last three quarters."""
        total = self.seen[-1][1]
        begin = next(entry for entry in self.seen if entry[1] >= total / 4)
        return (total - begin[1]) / (self.seen[-1][0] - begin[0])


@contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Seconds of all threads in the stages of a slice."""
    spent, lock, before = dict[str, float](), threading.Lock(), []

    def watch(owner: Any, name: str, label: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)
        before.append((owner, name, original))

        def timed(*args: Any, **kwargs: Any) -> Any:
            at = time.monotonic()
            try:
                return original(*args, **kwargs)
            finally:
                with lock:
                    spent[label] = spent.get(label, 0.0) + time.monotonic() - at

        setattr(owner, name, timed)

    from quantkit.gpu_counting.launches import Launcher

    watch(gpu_runner.GpuRunner, "__call__", "input and network")
    watch(gpu_runner.GpuRunner, "_feed", "input")
    watch(Launcher, "add_channels", "launch of channel sums")
    watch(Launcher, "extremes", "extremes, with the wait for channel sums")
    watch(Launcher, "histograms", "histograms")
    watch(DeviceRuns, "count", "settling, histograms and adding")
    try:
        yield spent
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def ready_batches(count: int, size: int = BATCH) -> Iterator[Batch]:
    """Batches that cost nothing to make: eight, again and again."""
    coarse = np.random.default_rng(0).normal(0, 1, (8, size, 3, SIDE // 16, SIDE // 16)).astype(np.float32)
    made = [{"image": x.repeat(16, 2).repeat(16, 3)} for x in coarse]
    for k in range(count // size):
        yield made[k % len(made)]


def calibrated(path: Path, data: Any, count: int, provider: str, **more: Any) -> dict[str, Any]:
    """One calibration, end to end: from JPEG files in a folder, or from batches that are there."""
    clock = Clock()
    options = {"threads": usable_cores(), "limit": count, "provider": provider, "backend": "onnxruntime", **more}
    if isinstance(data, Path):
        options = {"preprocess": "unit", "batch_size": BATCH, **options}
    started = time.monotonic()
    with timed_stages() as spent:
        made = quantkit.calibrate(path, data, progress=clock, **options)
    seconds = time.monotonic() - started
    return {
        "images": count,
        "images_per_second": round(clock.rate(), 1),
        "seconds in all": round(seconds, 2),
        "seconds before the first count": round(clock.seen[0][0] - started, 2),
        "slice": made.statistics.origin.slice,
        "notes": list(made.notes),
        "ms per batch": {k: round(1e3 * v / (count / options.get("batch_size", BATCH)), 2) for k, v in spent.items()},
    }


def feed_alone(path: Path, images: Path, count: int, preprocess: str) -> dict[str, Any]:
    """Images per second of decoding, preprocessing and stacking alone."""
    from quantkit.calibration.job import prepare_job
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.data import DataOptions

    reading = DataOptions(limit=count, batch_size=BATCH, threads=usable_cores())
    job = prepare_job(path, images, "minmax", preprocess, None, CalibrateOptions(data=reading))
    at = time.monotonic()
    read = sum(portion.samples for portion in job.feed.portions())
    return {"images": read, "images_per_second": round(read / (time.monotonic() - at), 1)}


@contextmanager
def gpu_threads(count: int) -> Iterator[None]:
    """As many threads for the GPU."""
    before, memory_plan.GPU_RUNNERS = memory_plan.GPU_RUNNERS, count
    try:
        yield
    finally:
        memory_plan.GPU_RUNNERS = before


@contextmanager
def one_run_at_a_time() -> Iterator[None]:
    """Threads for the GPU that never run the network at the same time."""
    before, lock = gpu_runner.run_stoppably, threading.Lock()

    def alone(run: Callable[[Any], Any]) -> Any:
        with lock:
            return before(run)

    gpu_runner.run_stoppably = alone
    try:
        yield
    finally:
        gpu_runner.run_stoppably = before


def gpu(path: Path, images: Path, count: int) -> Iterator[tuple[str, Any]]:
    """Calibrations on the GPU, and their parts."""
    half, large = count // 2, {"max_memory": MEMORY}
    yield "first run of the process", calibrated(path, ready_batches(256), 256, "cuda", **large)
    for mode in MODES:
        more = {**large, "histogram": mode}
        yield f"ready batches, {mode.value}", calibrated(path, ready_batches(count), count, "cuda", **more)
    yield "ready batches, 4 GiB, the default", calibrated(path, ready_batches(half), half, "cuda")
    yield "JPEG files", calibrated(path, images, count, "cuda", **large)
    with gpu_threads(1):
        yield "ready batches, 1 thread for the GPU", calibrated(path, ready_batches(half), half, "cuda", **large)
    with gpu_threads(3):
        yield "ready batches, 3 threads for the GPU", calibrated(path, ready_batches(half), half, "cuda", **large)
    with one_run_at_a_time():
        label = "ready batches, the network run by one thread at a time"
        yield label, calibrated(path, ready_batches(half), half, "cuda", **large)
    yield "ready batches of 32", calibrated(path, ready_batches(half, 32), half, "cuda", **large)
    yield "JPEG files, the feed alone", feed_alone(path, images, half, "unit")


def two_processes(path: Path, images: Path, count: int, folder: Path) -> dict[str, Any]:
    """Two shards, each with a GPU of its own, and their merge."""
    place = folder / "shards"
    options = {
        "--data": images, "--limit": count, "--preprocess": "unit", "--provider": "cuda", "--backend": "onnxruntime",
        "--batch-size": BATCH, "--max-memory": MEMORY, "--threads": max(1, usable_cores() // 2), "-o": place,
    }  # fmt: skip
    given = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, "-m", "quantkit", "calibrate", str(path), *given, "-q"]
    started = time.monotonic()
    running = [
        subprocess.Popen(
            [*command, "--shard", f"{k}/2"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(k), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for k in range(2)
    ]
    codes = [process.wait() for process in running]
    return {"exit codes": codes, "images": count, "seconds in all": round(time.monotonic() - started, 2)}


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    import cupy
    import onnxruntime

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "gpu": properties["name"].decode(),
        "gpus": cupy.cuda.runtime.getDeviceCount(),
        "onnxruntime": onnxruntime.__version__,
        "cupy": cupy.__version__,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "quantkit": quantkit.__version__,
        "compiled kernel": quantkit.kernel.COMPILED,
        "network": "resnet50's architecture, random weights, float32",
        "batch": BATCH,
    }


def main() -> None:
    """Run the sections, and write what is known after each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--sections", default="equal,floor,gpu,cpu")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True, parents=True)
    output = Path(os.environ.get("OUT", given.folder)) / "cuda_counts.json"
    started, document = time.monotonic(), {"machine": machine()}

    def note(section: str, label: str, figures: Any) -> None:
        document.setdefault(section, {})[label] = figures
        output.write_text(json.dumps(document, indent=1))
        print(f"[{time.monotonic() - started:6.1f}] {section} | {label}: {json.dumps(figures)}", flush=True)

    path = network(given.folder)
    images = make_images(given.folder / "images", given.images)
    print(f"[{time.monotonic() - started:6.1f}] network and images are there", flush=True)
    for section in given.sections.split(","):
        try:
            if section == "equal":
                for label, figures in equal_distributions(given.golden) if given.golden else ():
                    note(section, label, figures)
                for label, figures in equal_activations(path):
                    note(section, label, figures)
            elif section == "floor":
                note(section, f"batches of {BATCH}", plain_onnxruntime(path, BATCH))
            elif section == "gpu":
                for label, figures in gpu(path, images, given.images):
                    note(section, label, figures)
            elif section == "cpu":
                note(section, "ready batches", calibrated(path, ready_batches(512), 512, "cpu"))
            elif section == "two":
                note(section, "two shards", two_processes(path, images, given.images, given.folder))
        except Exception as error:  # the other sections still count
            import traceback

            traceback.print_exc()
            note(section, "error", repr(error)[:500])


if __name__ == "__main__":
    main()
