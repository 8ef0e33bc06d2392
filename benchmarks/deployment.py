"""Four networks the whole way on a GPU: every precision, streams 1, 2, 4 with and without CUDA graphs, and accuracy.

    python benchmarks/deployment.py [NETWORK…] --shared DIR --images DIR [--output DIR]
    python benchmarks/deployment.py --pages

Writes results/deployment/NETWORK.json with what `quantkit run` finds, and the page made of it. DIR of images holds
train/ and test/ class folders of CIFAR-10. --pages makes the pages again from the JSON, without a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from quantkit import Settings, run
from quantkit.engines.bench_result import BenchResult
from quantkit.evaluation.json_document import parse_evaluation
from quantkit.evaluation.result import Evaluation
from quantkit.project.recommendation import recommendation
from quantkit.project.run import run_document
from quantkit.report.html import evaluation_page

RESULTS = Path(__file__).resolve().parent / "results" / "deployment"
CIFAR = ("resnet20", "mobilenetv2", "vit")
NETWORKS = (*CIFAR, "ultraface")
FACES = 'size = [240, 320]\nchannels = "rgb"\nmean = [127.0]\nstd = [128.0]\n'


def settings(network: str, shared: Path, images: Path, folder: Path) -> Settings:
    """How a network goes the whole way; engines of optimization level 1, which is quick to build."""
    common: dict[str, Any] = {"gpu": True, "output": str(folder / network), "build": {"level": 1}}
    model = str(shared / "models" / f"{network}.onnx")
    if network in CIFAR:
        return Settings(
            model=model,
            data=str(shared / "golden" / "networks" / "calibration_512.npz"),
            preprocess="cifar10",
            evaluate={"data": str(images / "test"), "max_drop": 0.5},
            bench={"batches": (1, 32, 256), "streams": (1, 2, 4), "seconds": 0.1},
            **common,
        )
    (folder / "faces.toml").write_text(FACES)
    return Settings(
        model=model,
        data=str(images / "train"),
        preprocess=str(folder / "faces.toml"),
        calibrate={"limit": 64},
        evaluate={"data": str(images / "test"), "limit": 64},
        bench={"batches": (1,), "streams": (1, 2, 4), "seconds": 0.1},
        **common,
    )


def figures(content: dict[str, Any]) -> tuple[Evaluation, BenchResult | None]:
    """The values in a result."""
    bench = None if content["bench"] is None else TypeAdapter(BenchResult).validate_python(content["bench"])
    return parse_evaluation(content["evaluation"], "result"), bench


def page(content: dict[str, Any]) -> str:
    """The page of a result, without the images."""
    evaluation, bench = figures(content)
    models = tuple(replace(model, changed=()) for model in evaluation.models)
    said = (recommendation(evaluation, bench), *evaluation.verdict)
    return evaluation_page(replace(evaluation, models=models, verdict=said), bench=bench)


def document_text(content: dict[str, Any]) -> str:
    """The text of a figures file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def measured(network: str, shared: Path, images: Path) -> dict[str, Any]:
    """What a run finds, without paths."""
    with TemporaryDirectory() as folder:
        started = time.monotonic()
        made = run_document(run(settings(network, shared, images, Path(folder)), phase=print))
        made |= {"date": date.today().isoformat(), "seconds": round(time.monotonic() - started, 1)}
        made["files"] = sorted(made["files"])
        for model in made["evaluation"]["models"]:
            model["path"], model["changed"] = None, []
        return made


def main() -> None:
    """Measure, or make the pages again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", choices=[*NETWORKS, []])
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--pages", action="store_true")
    arguments = parser.parse_args()
    if not arguments.pages:
        for network in arguments.networks or NETWORKS:
            made = measured(network, arguments.shared, arguments.images)
            (arguments.output / f"{network}.json").write_text(document_text(made), encoding="utf-8")
            print(f"{network}: {made['seconds']} s; {made['recommendation']}", flush=True)
    for path in sorted(arguments.output.glob("*.json")):
        path.with_suffix(".html").write_text(page(json.loads(path.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
