"""What a map costs: seconds to make the page, its size, and when a browser has painted it.

    python benchmarks/map.py [--operators 2000] [--repeats 5] [--browser chromium] [--output results/map.json]

The network is a chain of bottlenecks: folded, where its blocks are one card each, and flat, as if nothing in it came
twice. Each page is opened in a new browser without window, 1280 × 900. "Painted" is the time from the start of the
navigation to the first frame after the script has drawn the map; medians are shown.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from harness import tables
from harness.machine import this_machine
from onnx import TensorProto, helper, numpy_helper

from quantkit import network_map

BLOCK = 7
"""Operators of a bottleneck."""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>')
PROBE = (
    "<script>requestAnimationFrame(() => setTimeout(() => console.log(`painted ${performance.now()} ms`)));</script>"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--output", type=Path, metavar="JSON")
    given = parser.parse_args(arguments)
    measured = []
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "chain.onnx"
        onnx.save(chain_of_bottlenecks(given.operators // BLOCK), model)
        for fold in (True, False):
            page = Path(place) / f"{fold}.html"
            made = [seconds_to_make(model, page, fold) for _ in range(given.repeats)]
            painted = [seconds_to_paint(page, given.browser) for _ in range(given.repeats)]
            measured.append({"folded": fold, "bytes": page.stat().st_size, "made": made, "painted": painted})
    rows = [
        ("folded" if m["folded"] else "flat", f"{median(m['made']):.2f}", f"{m['bytes'] / 1e6:.2f}",
         f"{median(m['painted']):.2f}")
        for m in measured
    ]  # fmt: skip
    print(tables.plain_text(("page", "made s", "MB", "painted s"), rows))
    if given.output:
        record = {
            "kind": "map",
            "machine": asdict(this_machine()),
            "python": sys.version.split()[0],
            "operators": given.operators,
            "pages": measured,
        }
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def chain_of_bottlenecks(count: int) -> onnx.ModelProto:
    """A network of `count` bottlenecks: three convolutions, each with a Relu but the last, an Add and a Relu."""
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    nodes, last = [], "x"
    for number in range(count):
        at, into = last, f"block.{number}"
        for layer, operator in enumerate(("Conv", "Relu", "Conv", "Relu", "Conv", "Add", "Relu")):
            own = f"{into}/{operator}_{layer}"
            reads = {"Conv": [at, "w"], "Relu": [at], "Add": [at, last]}[operator]
            nodes.append(helper.make_node(operator, reads, [own], own))
            at = own
        last = at
    shape = [1, 4, 8, 8]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds_to_make(model: Path, page: Path, fold: bool) -> float:
    """Time to read a model and write its page."""
    begun = time.perf_counter()
    network_map(model, page, fold=fold, force=True)
    return time.perf_counter() - begun


def seconds_to_paint(page: Path, browser: str) -> float:
    """Time until a browser has painted a page, whose policy gives way to the script that measures."""
    probed = page.with_suffix(".probe.html")
    text = POLICY.sub("", page.read_text(encoding="utf-8"))
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}",
             "--window-size=1280,900", "--enable-logging=stderr", f"--screenshot={profile}/shot.png", probed.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    found = re.search(r"painted ([0-9.]+) ms", done.stderr)
    if found is None:
        raise SystemExit(f"{browser} painted nothing: {done.stderr[-500:]}")
    return float(found[1]) / 1000


if __name__ == "__main__":
    sys.exit(main())
