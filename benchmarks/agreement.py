"""How closely tables made on a CPU agree with those that TensorRT 8.6 wrote on a GPU, for real networks.

Needs a folder with `models/` and `golden/networks/` (QUANTKIT_SHARED, default `../shared`): trained networks, 512
images, and the tables that TensorRT's own calibrators wrote from them. Writes results/agreement.json and agreement.md.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import quantkit
from quantkit import CalibrateOptions

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
RULES = {"entropy": "entropy2", "minmax": "minmax"}


def agreement(network: str) -> list[dict[str, Any]]:
    """One row for every table that TensorRT wrote for a network."""
    golden = SHARED / "golden" / "networks"
    made = quantkit.calibrate(
        SHARED / "models" / f"{network}.onnx",
        golden / "calibration_512.npz",
        preprocess="cifar10",
        rules=",".join(RULES),
        options=CalibrateOptions(tensorrt_version="8.6.0"),
    )
    assert made.statistics is not None
    rows = []
    for rule, name in RULES.items():
        path = golden / f"{network}_{name}.cache"
        if not path.exists():
            continue
        theirs, ours = quantkit.read_table(path), made.tables[rule]
        common = [tensor for tensor in theirs.scales if tensor in ours.scales]
        relative = np.array([abs(ours.scales[n] / theirs.scales[n] - 1) for n in common])
        widths = np.array([made.statistics.histograms[n].width for n in common])
        bins = np.array([abs(ours.amax(n) - theirs.amax(n)) for n in common]) / widths
        rows.append(
            {
                "network": network,
                "table": theirs.header.algorithm.value,
                "tensors": len(common),
                "only_tensorrt": len(theirs.scales) - len(common),
                "only_quantkit": len(ours.scales) - len(common),
                "within_1e-5": float((relative <= 1e-5).mean()),
                "within_one_bin": float((bins <= 1.001).mean()),
                "worst": float(relative.max()),
            }
        )
    return rows


def markdown(document: dict[str, Any]) -> str:
    """The page."""
    head = """# Agreement with TensorRT's own tables

TensorRT 8.6.0 on an H200, TF32 off, calibrated these networks with its own calibrators on 512 CIFAR-10 images in
16 batches; quantkit calibrated them on a CPU with the same images in the same order. Convolutions of a CPU and a GPU
differ in the last bits, so that now and then the minimum of the entropy search moves to another bin.

| network | table | tensors in both | within 10⁻⁵ | within one bin | worst |
|---|---|---|---|---|---|
"""
    rows = "".join(
        f"| {r['network']} | {r['table']} | {r['tensors']} | {r['within_1e-5']:.1%} | {r['within_one_bin']:.1%} "
        f"| {r['worst']:.2g} |\n"
        for r in document["rows"]
    )
    tail = f"""
Tensors that only TensorRT has are constants and reshapes to which its parser gives names of its own; tensors that only
quantkit has are outputs (of Softmax) which the parser renames. On equal activations all four kinds of table are equal
byte for byte (`tests/test_golden_distributions.py`).

quantkit {document["quantkit"]}, onnxruntime {document["onnxruntime"]}, {document["date"]}; `benchmarks/agreement.py`.
"""
    return head + rows + tail


def main() -> None:
    """Measure and write both files."""
    if not (SHARED / "golden" / "networks").is_dir():
        sys.exit(f"no golden/networks in {SHARED}: set QUANTKIT_SHARED")
    networks = sorted({p.name.split("_")[0] for p in (SHARED / "golden" / "networks").glob("*.cache")})
    document = {
        "quantkit": quantkit.__version__,
        "onnxruntime": version("onnxruntime"),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "rows": [row for network in networks for row in agreement(network)],
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "agreement.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (HERE / "results" / "agreement.md").write_text(markdown(document), encoding="utf-8")
    print(markdown(document))


if __name__ == "__main__":
    main()
