"""What `tune` makes of networks that are broken on purpose, and of ones that are quantized too hard.

    python benchmarks/tuning.py --images DIR [--cases NAME…]

Needs a folder with `models/` and `golden/networks/` (QUANTKIT_SHARED, default `../shared`), and DIR with the class
folders of CIFAR-10's test images: half of them tune, the figures are of the other half. Statistics come from 512 other
images. INT8 is simulated by onnxruntime. Beside each result stands the naive way: as many layers in float, but the
first of the network. Writes results/tuning.json and tuning.md; cases that are not named stay as they are there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from harness.machine import REPOSITORY, this_machine
from onnx import numpy_helper

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions, Statistics
from quantkit.graph import Model, load_model
from quantkit.qdq.partial import PartialQuantization
from quantkit.tuning.metric_trials import MetricTrials, TrialRequest, holdout_parts, loss_of
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import Tuning
from quantkit.tuning.tune import tune

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "tuning.json"
SHARED = Path(os.environ.get("QUANTKIT_SHARED", REPOSITORY.parent / "shared"))
SPEC = "cifar10"
MAX_DROP = 0.5
CHANNEL, TIMES = 5, 100.0
WIDER = 128.0


@dataclass(frozen=True)
class Case:
    """What is tuned. network: of models/; broken: what is done to the file, or to the statistics."""

    network: str
    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    broken: Callable[[onnx.ModelProto], None] | None = None
    statistics: Callable[[Statistics, Path], Statistics] | None = None


def louder_channel(proto: onnx.ModelProto) -> None:
    """A channel between two convolutions × 100, and back in the second: the same function in float.

    The channel lies behind a Relu, which keeps factors, and nothing else reads it.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    first, second = channel_between(proto)
    for name, axis, factor in ((first.input[1], 0, TIMES), (first.input[2], 0, TIMES), (second.input[1], 1, 1 / TIMES)):
        values = numpy_helper.to_array(weights[name]).copy()
        values[(slice(None),) * axis + (CHANNEL,)] *= np.float32(factor)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))


def channel_between(proto: onnx.ModelProto) -> tuple[Any, Any]:
    """The first two convolutions with a bias with nothing but a Relu between them."""
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in proto.graph.node:
        behind = readers.get(node.output[0], [])
        if node.op_type != "Conv" or len(node.input) < 3 or [n.op_type for n in behind] != ["Relu"]:
            continue
        after = readers.get(behind[0].output[0], [])
        if [n.op_type for n in after] == ["Conv"]:
            return node, after[0]
    raise AssertionError("no such channel")


def wider(statistics: Statistics, path: Path) -> Statistics:
    """The activation that a convolution in the middle reads as if its values reached 128 times as far, so that no rule
    finds its scale."""
    nodes = onnx.load(path).graph.node
    read = [name for node in nodes for name in node.input]
    alone = [node.input[0] for node in nodes if node.op_type == "Conv" and read.count(node.input[0]) == 1]
    name = alone[len(alone) // 2]
    found = statistics.histograms[name]
    changed = replace(found, range=found.range * WIDER, minimum=found.minimum * WIDER, maximum=found.maximum * WIDER)
    return replace(statistics, histograms={**statistics.histograms, name: changed})


ALONE = {"rules": "minmax", "repairs": ()}
CASES = {
    "resnet20, a channel × 100": Case("resnet20", "all rules and repairs allowed", {}, louder_channel),
    "resnet20, a channel × 100, layers only": Case("resnet20", "minmax, no repairs", ALONE, louder_channel),
    "resnet20, a scale × 128": Case("resnet20", "all rules, no repairs", {"repairs": ()}, None, wider),
    "vit, everything by minmax": Case("vit", "minmax, no repairs", {**ALONE, "policy": "all"}),
    "vit, everything by percentile:99": Case(
        "vit", "percentile:99, no repairs", {"rules": "percentile:99", "repairs": (), "policy": "all"}
    ),
    "vit, everything, all rules": Case("vit", "all rules and repairs allowed", {"policy": "all"}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    given = parser.parse_args(arguments)
    for name in given.cases:
        with tempfile.TemporaryDirectory() as folder:
            case = measured(CASES[name], given.images, Path(folder))
        found = json.loads(RESULTS.read_text(encoding="utf-8"))["cases"] if RESULTS.exists() else {}
        found[name] = case
        print(name, json.dumps(found[name]["verdict"], ensure_ascii=False), flush=True)
        write({"cases": {name: found[name] for name in CASES if name in found}})
    return 0


def measured(case: Case, images: Path, folder: Path) -> dict[str, Any]:
    """Tune one case, and the naive way beside it."""
    proto = onnx.load(SHARED / "models" / f"{case.network}.onnx")
    if case.broken is not None:
        case.broken(proto)
    path = folder / f"{case.network}.onnx"
    onnx.save(proto, path)
    calibration = SHARED / "golden" / "networks" / "calibration_512.npz"
    statistics = quantkit.calibrate(
        path, calibration, preprocess=SPEC, options=CalibrateOptions(backend="onnxruntime")
    ).statistics
    assert statistics is not None
    if case.statistics is not None:
        statistics = case.statistics(statistics, path)
    made = tune(
        path,
        images,
        max_drop=MAX_DROP,
        calibration=calibration,
        statistics=statistics,
        preprocess=SPEC,
        options=TuneOptions(**case.options, front=False),
        phase=lambda text: print("   ", text, flush=True),
    )
    return {
        "what": case.what,
        "date": date.today().isoformat(),
        "machine": asdict(this_machine()),
        "reference": made.reference,
        "untuned": asdict(made.untuned),
        "tuned": asdict(made.tuned),
        "kept": len(made.chosen.recipe.kept),
        "layers": made.layers,
        "weights_in_float": made.chosen.floats,
        "chosen": made.chosen.recipe.text(),
        "evaluations": made.evaluations,
        "samples": list(made.samples),
        "within_budget": made.within_budget,
        "first_layers": first_layers(load_model(path), made, images, statistics, case),
        "trials": [[t.recipe.text(), t.proxy_db, t.figure and asdict(t.figure), t.outcome] for t in made.trials],
        "verdict": made.verdict,
        "seconds": round(made.seconds, 1),
    }


def first_layers(source: Model, made: Tuning, images: Path, statistics: Statistics, case: Case) -> Any:
    """The same rule with as many layers in float, but the first; None where none was kept."""
    recipe = made.chosen.recipe
    if not recipe.kept:
        return None
    options = QuantizeOptions(rule=recipe.rule, repairs=recipe.repairs, policy=case.options.get("policy", "tensorrt"))
    whole = quantkit.quantize(source, statistics=statistics, options=options)
    layers = PartialQuantization(replace(source, proto=whole.proto, sha256="")).layers
    nodes = tuple(layer.node for layer in layers[: len(recipe.kept)])
    naive = quantkit.quantize(source, statistics=statistics, options=replace(options, exclude=nodes))
    judge = MetricTrials(source, TrialRequest(images, preprocess=SPEC), holdout_parts(0.5, quantkit.DataOptions())[1])
    found = judge.evaluation({"first": replace(source, proto=naive.proto, sha256="")})
    return asdict(loss_of(found, found.models[1]))


def write(document: Mapping[str, Any]) -> None:
    """The JSON file and the page."""
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(rendered(document), encoding="utf-8")


def rendered(document: Mapping[str, Any]) -> str:
    """The page."""
    cases = document["cases"]
    some = next(iter(cases.values()))
    days = sorted({case["date"] for case in cases.values()})
    lines = [
        "# What tune makes of broken networks",
        "",
        f"`benchmarks/tuning.py`, {' and '.join(days)}, {some['machine']['cores']} cores, no GPU. Half of CIFAR-10's "
        f"10,000 test images tune, the figures are of the other {some['samples'][1]:,}; budget {MAX_DROP} points. "
        "Statistics from 512 other images. INT8 is simulated by onnxruntime. Drops in points of top-1, with one "
        "standard error.",
        "",
        "| case | allowed | FP32 | untuned | tuned | chosen | kept | evaluations | as many, but the first |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in cases.items():
        cells = (
            name, case["what"], f"{case['reference']:.2%}", drop(case["untuned"]), drop(case["tuned"]), case["chosen"],
            f"{case['kept']} of {case['layers']}", str(case["evaluations"]), drop(case["first_layers"]),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    idle = [name for name, case in cases.items() if case["untuned"]["drop"] <= MAX_DROP]
    if idle:
        lines += ["", f"Inside the budget untuned, as figures of the held-out part: {'; '.join(idle)}."]
    return "\n".join(lines) + "\n"


def drop(found: Mapping[str, float] | None) -> str:
    """`0.42 ± 0.11`."""
    return "" if found is None else f"{found['drop']:.2f} ± {found['error']:.2f}".replace("-", "−")


if __name__ == "__main__":
    raise SystemExit(main())
