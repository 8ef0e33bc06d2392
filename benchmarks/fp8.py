"""FP8 beside INT8 and FP16: accuracy as onnxruntime simulates it, rules for its scales, and NVIDIA's compiler.

    python benchmarks/fp8.py vit --images DIR --calibration DIR [--limit N] [--rules wmse,minmax,percentile:99.999]
    python benchmarks/fp8.py yolov8n --images data.yaml --calibration DIR --limit 200
    python benchmarks/fp8.py vit --compile

Adds a network's figures to results/fp8.json and writes results/fp8.md. DIR holds one folder for each class. All
quantized models are `quantize` from the statistics of 512 calibration images, none of which is evaluated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.machine import this_machine
from harness.scores import score_figures

import quantkit
from quantkit.compiling.options import CompileOptions
from quantkit.graph import load_model
from quantkit.rewrites.fp16 import convert_to_fp16
from quantkit.rules import DEFAULT_RULE

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
OUTPUT = HERE / "results" / "fp8.json"
TENSORRT = "10.3.0"
"""What the models are for: also where TensorRT 8, which has no FP8, is installed."""
SPECS = {"yolov8n": "yolo"}
ARCHITECTURES = ("sm89", "sm120")
HEAD = "| | {metric}, % | drop, points | 95 % interval | agreement, % | SQNR, dB |"


def calibrated(network: str, calibration: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a network, and its statistics."""
    model = folder / f"{network}.onnx"
    shutil.copyfile(SHARED / "models" / model.name, model)
    quantkit.calibrate(
        model, calibration, preprocess=SPECS.get(network, "cifar10"), backend="onnxruntime", rule="minmax",
        output=folder / "table.calib",
    )  # fmt: skip
    return model, folder / "table.stats.safetensors"


def variants(model: Path, statistics: Path, rules: list[str], folder: Path) -> dict[str, Path]:
    """Name → model, the float one first."""
    import onnx

    found = {"FP32": model, "FP16": folder / "fp16.onnx", "INT8": folder / "int8.onnx"}
    onnx.save(convert_to_fp16(load_model(model)).proto, found["FP16"])
    quantkit.quantize(model, found["INT8"], statistics=statistics, tensorrt_version=TENSORRT)
    for rule in rules:
        name = "FP8" if rule == DEFAULT_RULE else f"FP8, {rule}"
        found[name] = folder / f"{name.replace(':', '')}.onnx"
        quantkit.quantize(model, found[name], statistics=statistics, type="fp8", rule=rule, tensorrt_version=TENSORRT)
    if DEFAULT_RULE in rules:
        name = "FP8, no bias correction"
        found[name] = folder / f"{name}.onnx"
        quantkit.quantize(model, found[name], statistics=statistics, type="fp8", repairs=(), tensorrt_version=TENSORRT)
    return found


def accuracy(network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of every variant on the same images."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        model, statistics = calibrated(network, arguments.calibration, folder)
        found = variants(model, statistics, arguments.rules.split(","), folder)
        made = quantkit.evaluate(
            list(map(str, found.values())), arguments.images, preprocess=SPECS.get(network, "cifar10"),
            limit=arguments.limit,
        )  # fmt: skip
    rows = {key: score_figures(score, made.metric) for key, score in zip(found, made.models, strict=True)}
    return {"samples": made.samples, "metric": made.metric, "simulated_by": "onnxruntime", "variants": rows}


def compiled(network: str, calibration: Path) -> dict[str, Any]:
    """The products of TensorRT-RTX's kernels by type: with the operators that TensorRT has kernels for, and all."""
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        model, statistics = calibrated(network, calibration, folder)
        for key, include in {"as for TensorRT": (), "every convolution": ("Conv",)}.items():
            path = folder / f"{key}.onnx"
            made = quantkit.quantize(model, path, statistics=statistics, type="fp8", include=include)
            result = quantkit.compile(path, options=CompileOptions(architectures=ARCHITECTURES, compare=False))
            figures[key] = {"fp8_layers": made.fp8_layers, "weighted": made.int8_layers[1], "version": result.version}
            for architecture in ARCHITECTURES:
                net = result.variants[0].network(architecture)
                figures[key][architecture] = None if net is None else {
                    "fp8_products": sum(k.fp8 for k in net.products), "products": len(net.products),
                    "kernels": len(net.running), "float": [k.nodes[0] for k in net.products if not k.fp8],
                }  # fmt: skip
    return figures


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# FP8 beside INT8 and FP16", "",
        f"Simulated: onnxruntime {content['onnxruntime']} on a CPU computes Q and DQ in float, so these figures are"
        " those of rounding, not of a GPU's kernels. Statistics of 512 training images, `quantize` without data; FP8 by"
        f" the rule `{DEFAULT_RULE}` where no rule is named. Test images, none of which was calibrated on.",
    ]  # fmt: skip
    for network, entry in content["networks"].items():
        lines += ["", f"## {network}, {entry['samples']:,} images", "", HEAD.format(metric=entry["metric"])]
        lines.append("|---|---|---|---|---|---|")
        for name, row in entry["variants"].items():
            spread = "" if row["interval"] is None else f"{row['interval'][0]:.2f} … {row['interval'][1]:.2f}"
            cells = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("metric", "drop")]
            cells += [spread, *("" if row[key] is None else f"{row[key]:.2f}" for key in ("agreement", "sqnr_db"))]
            layers = f", {row['fp8_layers']} of {row['int8_layers'][1]} layers" if row["fp8_layers"] else ""
            lines.append(f"| {name}{layers} | {' | '.join(cells)} |".replace("-", "−").replace("|−−−", "|---"))
    if content["compiled"]:
        lines += ["", "## Compiled", "", "Products in FP8 by TensorRT-RTX, which is not TensorRT, without a GPU."]
        lines += ["", "| network | Q/DQ | layers in FP8 | SM89 | SM120 |", "|---|---|---|---|---|"]
        for network, each in content["compiled"].items():
            for key, row in each.items():
                counts = [f"{row[a]['fp8_products']} of {row[a]['products']}" if row[a] else "–" for a in ARCHITECTURES]
                layers = f"{row['fp8_layers']} of {row['weighted']}"
                lines.append(f"| {network} | {key} | {layers} | {' | '.join(counts)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure one network, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rules", default=DEFAULT_RULE)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    content = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {"networks": {}, "compiled": {}}
    if arguments.compile:
        content["compiled"][arguments.network] = compiled(arguments.network, arguments.calibration)
    else:
        content["networks"][arguments.network] = accuracy(arguments.network, arguments)
    machine = this_machine()
    content |= {"date": machine.date, "cpu": machine.cpu, "onnxruntime": version("onnxruntime")}
    OUTPUT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    OUTPUT.with_suffix(".md").write_text(page(content))


if __name__ == "__main__":
    main()
