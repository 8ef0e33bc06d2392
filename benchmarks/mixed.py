"""INT8, FP8, and both layer by layer: what `tune --type mixed` chooses, on images that no choice was made by.

    python benchmarks/mixed.py NETWORK… --images DIR --calibration DIR [--limit N] [--compile]

Adds each network's figures to results/mixed.json and writes results/mixed.md. DIR holds one folder for each class. All
networks are `quantize` from the statistics of 512 calibration images, with bias correction alone; half of the images is
tuned on, for the agreement with the float network, and the figures are those of the other half.
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
from quantkit.data import DataOptions
from quantkit.tuning.metric_trials import holdout_parts
from quantkit.tuning.options import TuneOptions

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
OUTPUT = HERE / "results" / "mixed.json"
ARCHITECTURES = ("sm89", "sm120")
BY_HAND = 4
"""One layer of so many is FP8 in the mix by hand: those that lose least by it."""


def flat_copy(images: Path, limit: int, folder: Path) -> tuple[Path, Path]:
    """Images of all classes in one folder, and a file of their labels."""
    found = sorted(images.glob("*/*"))
    chosen = found[:: max(len(found) // limit, 1)][:limit]
    flat, labels = folder / "images", folder / "labels.csv"
    flat.mkdir()
    classes = sorted({path.parent.name for path in found})
    lines = []
    for number, path in enumerate(chosen):
        name = f"{number:05d}{path.suffix}"
        shutil.copyfile(path, flat / name)
        lines.append(f"{name},{classes.index(path.parent.name)}")
    labels.write_text("\n".join(lines) + "\n")
    return flat, labels


def measured(network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of INT8, FP8, the mix that is chosen, and one by hand, on the images that nothing was chosen by."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / f"{network}.onnx"
        shutil.copyfile(SHARED / "models" / model.name, model)
        statistics = folder / "table.stats.safetensors"
        quantkit.calibrate(
            model, arguments.calibration, preprocess="cifar10", backend="onnxruntime", rule="minmax",
            output=folder / "table.calib",
        )  # fmt: skip
        images, labels = flat_copy(arguments.images, arguments.limit, folder)
        options = TuneOptions(type="mixed", rules="wmse", repairs=("bias",), most=0.0, front=False)
        tuned = quantkit.tune(
            model, images, max_drop=0.0, statistics=statistics, preprocess="cifar10", options=options
        )  # no labels: the loss is what does not agree
        ranked = sorted(tuned.layer_types, key=lambda layer: -layer.gain.db)
        by_hand = tuple(layer.node for layer in ranked[: len(ranked) // BY_HAND])
        kinds: dict[str, dict[str, Any]] = {"INT8": {}, "FP8": {"type": "fp8"}, "by hand": {"fp8": by_hand}}
        chosen = tuned.chosen.recipe.fp8
        kinds |= {"chosen": {"fp8": chosen}} if chosen else {}
        paths = {kind: folder / f"{kind}.onnx" for kind in kinds}
        for kind, given in kinds.items():
            quantkit.quantize(model, paths[kind], statistics=statistics, rule="wmse", repairs=("bias",), **given)
        reading = DataOptions(part=holdout_parts(options.holdout, options.data)[1])
        found = quantkit.evaluate(
            [model, *paths.values()], images, labels=labels, preprocess="cifar10",
            options=quantkit.EvaluateOptions(data=reading),
        )  # fmt: skip
        return {
            "samples": found.samples,
            "tuned_on": tuned.samples[0],
            "layers": len(tuned.layer_types),
            "candidates": sum(layer.is_candidate for layer in tuned.layer_types),
            "chosen": list(chosen) or "INT8",
            "note": next((note for note in tuned.notes if note.startswith("INT8 is chosen")), ""),
            "seconds": round(tuned.seconds),
            "variants": {
                kind: score_figures(score, found.metric)
                for kind, score in zip(("FP32", *paths), found.models, strict=True)
            },
            "compiled": compiled(paths) if arguments.compile else {},
        }


def compiled(paths: dict[str, Path]) -> dict[str, Any]:
    """The products of TensorRT-RTX's kernels by type."""
    found: dict[str, Any] = {}
    for kind, path in paths.items():
        result = quantkit.compile(path, options=CompileOptions(architectures=ARCHITECTURES, compare=False))
        for architecture in ARCHITECTURES:
            net = result.variants[0].network(architecture)
            found.setdefault(kind, {})[architecture] = None if net is None else {
                "int8_products": sum(k.int8 for k in net.products), "fp8_products": sum(k.fp8 for k in net.products),
                "products": len(net.products), "kernels": len(net.running),
            }  # fmt: skip
    return found


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# INT8, FP8, and both layer by layer", "",
        f"Simulated: onnxruntime {content['onnxruntime']} on a CPU computes Q and DQ in float, so these figures are"
        " those of rounding, not of a GPU's kernels. Statistics of 512 training images, the rule `wmse`, bias"
        " correction. `tune --type mixed` saw other test images than those that the figures are of; INT8 alone missed"
        " its budget there, 0 points of agreement with the float network. By hand: the quarter of the layers that"
        " loses least by FP8.",
    ]  # fmt: skip
    for network, entry in content["networks"].items():
        chosen = "INT8" if entry["chosen"] == "INT8" else f"FP8 for {', '.join(entry['chosen'])}"
        lines += ["", f"## {network}, {entry['samples']:,} images", ""]
        lines += [f"Of {entry['layers']} layers {entry['candidates']} were candidates for FP8. Chosen: {chosen}.", ""]
        lines += ["| | INT8 and FP8 layers | top-1, % | drop, points | 95 % interval | agreement, % | SQNR, dB |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, each in entry["variants"].items():
            counts = "" if each["drop"] is None else f"{each['int8_layers'][0]} + {each['fp8_layers']}"
            spread = "" if each["interval"] is None else f"{each['interval'][0]:.2f} … {each['interval'][1]:.2f}"
            cells = ["" if each[key] is None else f"{each[key]:.2f}" for key in ("metric", "drop")]
            cells += [spread, *("" if each[key] is None else f"{each[key]:.2f}" for key in ("agreement", "sqnr_db"))]
            lines.append(f"| {name} | {counts} | {' | '.join(cells)} |".replace("-", "−"))
        if entry["compiled"]:
            lines += ["", "Products by TensorRT-RTX, without a GPU:", "", "| | SM89 | SM120 |", "|---|---|---|"]
            for name, each in entry["compiled"].items():
                cells = [
                    f"{n['int8_products']} INT8, {n['fp8_products']} FP8 of {n['products']}" if n else "–"
                    for n in (each[architecture] for architecture in ARCHITECTURES)
                ]
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure networks, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1200)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    for network in arguments.networks:
        content = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {"networks": {}}
        content["networks"][network] = measured(network, arguments)
        machine = this_machine()
        content |= {"date": machine.date, "cpu": machine.cpu, "onnxruntime": version("onnxruntime")}
        OUTPUT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        OUTPUT.with_suffix(".md").write_text(page(content))


if __name__ == "__main__":
    main()
