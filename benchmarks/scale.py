"""What it costs to divide a run: workers against one process, Ray's own share, and merging the shards of 500 tensors.

    python benchmarks/scale.py [--output results/scale.json] [--skip ray]

Arrays are made by the script, and every command is an interpreter of its own, so that a figure includes its start.

    workers   images/s of one process, of 2 and 3 workers, and of 2 Ray workers, with 512 and with 20,000 samples of the
              bundled network; and with 1,024 images of 3 × 64 × 64 for a convolutional network of 12 layers
    merging   64 shards of a network with 500 tensors, in TensorRT's mode: seconds, and the memory above one shard
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.machine import child_environment, this_machine

REPOSITORY = Path(__file__).resolve().parents[1]
MODES: dict[str, list[str]] = {
    "one process": [],
    "1 worker": ["--workers", "1"],
    "2 workers": ["--workers", "2"],
    "3 workers": ["--workers", "3"],
    "2 workers on Ray": ["--workers", "2", "--on", "ray"],
}
MERGE = """
import json, resource, sys, time
from dataclasses import replace
import numpy as np
from quantkit.artifact import sha256_of
from quantkit.histogram import HistogramMode
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.statistics import Collector, Origin, parse_statistics, statistics_bytes
from quantkit.statistics.shard_merging import ShardMerger

tensors, count = 500, 64
names = [f"t{k}" for k in range(tensors)]
drawn = np.random.default_rng(0)
base = {name: np.abs(drawn.normal(size=4096)).astype(np.float32)[None] for name in names}
first = {name: float(base[name].max()) for name in names}

def shard(k):
    collector = Collector(names, [], HistogramMode.TENSORRT, (), first)
    for name in names:
        collector.count(name, base[name] * np.float32(2.0 ** drawn.integers(-3, 4)), whole=True)
    collector.end_batch()
    chain = b"x" * 33
    origin = Origin(model="m", data="0" * 64, samples=1, histogram=HistogramMode.TENSORRT, backend="b", slice=0,
                    order=sha256_of(chain), batch_size=1, batches=1)
    record = record_shard(Shard(k, count), range(k, k + 1), RunIdentity({}), files="", watched=names)
    part = collector.statistics({}, origin)
    return statistics_bytes(replace(part, shard=record, chain=chain, seams=collector.seams()))

files = [shard(k) for k in range(count)]
parse_statistics(files[0], "warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started, reading = time.perf_counter(), 0.0
merger = ShardMerger()
for k, content in enumerate(files):
    began = time.perf_counter()
    part = parse_statistics(content, str(k))
    reading += time.perf_counter() - began
    merger.add(str(k), part)
merger.merged()
seconds = time.perf_counter() - started
more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"tensors": tensors, "shards": count, "seconds": seconds, "reading_seconds": reading,
                  "shard_mib": len(files[0]) / 2**20, "more_memory_mib": more}))
"""
NETWORK = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
drawn, nodes, weights, last = np.random.default_rng(0), [], [], "image"
for k in range(12):
    inputs, outputs = (3 if k == 0 else 32), 32
    w = drawn.normal(size=(outputs, inputs, 3, 3)).astype(np.float32) * (2 / (9 * inputs)) ** 0.5
    weights.append(numpy_helper.from_array(w, f"w{k}"))
    nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], f"conv{k}", pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"], f"relu{k}"))
    last = f"r{k}"
nodes.append(helper.make_node("GlobalAveragePool", [last], ["scores"], "pool"))
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 64, 64])
scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 32, 1, 1])
graph = helper.make_graph(nodes, "net", [image], [scores], weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
np.save(sys.argv[2], drawn.normal(size=(1024, 3, 64, 64)).astype(np.float32))
"""
ARRAYS = """
import sys
import numpy as np
np.save(sys.argv[1], np.random.default_rng(0).normal(size=(20000, 1, 16, 16)).astype(np.float32))
"""


def python(code: str, *arguments: object) -> str:
    """Run code in an interpreter of its own, and return what it prints."""
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, check=True, env=environment(), stdout=subprocess.PIPE, text=True).stdout


def environment() -> dict[str, str]:
    return child_environment(PYTHONPATH=str(REPOSITORY), RAY_ADDRESS="local")


def calibration(model: Path, data: Path, samples: int, options: list[str], folder: Path) -> dict[str, Any]:
    """Time one command, and return what it took."""
    out = folder / "out.calib"
    line = [sys.executable, "-m", "quantkit", "calibrate", model, "--data", data, "--limit", samples]
    line += ["--backend", "onnxruntime", "--preprocess", "raw", "--force", "--json", "-o", out, *options]
    started = time.perf_counter()
    subprocess.run(list(map(str, line)), check=True, env=environment(), stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    content = (folder / "out.stats.safetensors").read_bytes()
    return {"seconds": seconds, "images_per_second": samples / seconds, "bytes": hashlib.sha256(content).hexdigest()}


def workers(folder: Path, skip: set[str], rounds: int) -> dict[str, Any]:
    """Time all modes on all networks, the fastest of some rounds; all have to write the same bytes."""
    bundled = REPOSITORY / "calibration_data" / "model.onnx"
    network, images, rows = folder / "net.onnx", folder / "images.npy", folder / "rows.npy"
    python(NETWORK, network, images)
    python(ARRAYS, rows)
    found: dict[str, Any] = {}
    cases = {
        "bundled, 512 samples": (bundled, rows, 512),
        "bundled, 20,000 samples": (bundled, rows, 20000),
        "12 convolutions, 1,024 images": (network, images, 1024),
    }
    for case, (model, data, samples) in cases.items():
        kept: dict[str, Any] = {}
        for _ in range(rounds):
            for mode, options in MODES.items():
                if "on Ray" in mode and "ray" in skip:
                    continue
                taken = calibration(model, data, samples, options, folder)
                if mode not in kept or taken["seconds"] < kept[mode]["seconds"]:
                    kept[mode] = taken
        assert len({taken.pop("bytes") for taken in kept.values()}) == 1, f"{case}: not the same bytes"
        found[case] = kept
        print(case, {mode: round(taken["seconds"], 1) for mode, taken in kept.items()}, flush=True)
    return found


def versions() -> dict[str, str]:
    """Versions of what is measured."""
    code = "import json, onnxruntime, quantkit; print(json.dumps({'quantkit': quantkit.__version__, "
    code += "'onnxruntime': onnxruntime.__version__, 'ray': __import__('importlib.metadata').metadata.version('ray')}))"
    return dict(json.loads(python(code)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    parser.add_argument("--skip", action="append", default=[], choices=["ray"])
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "kind": "scale",
            "machine": asdict(this_machine()),
            "versions": versions(),
            "load_before": os.getloadavg()[0],
            "merging": json.loads(python(MERGE)),
            "workers": workers(Path(folder), set(chosen.skip), chosen.rounds),
            "load_after": os.getloadavg()[0],
        }
    if chosen.output.exists():  # those of scale_kills.py stay
        kills = json.loads(chosen.output.read_text(encoding="utf-8")).get("kills")
        result |= {"kills": kills} if kills else {}
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for case, modes in result["workers"].items():
        for mode, taken in modes.items():
            print(f"{case:32} {mode:18} {taken['seconds']:7.1f} s {taken['images_per_second']:9,.0f} images/s")
    print(result["merging"])


if __name__ == "__main__":
    main()
