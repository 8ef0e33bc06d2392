"""The engines of one network on one GPU: built, tuned, timed side by side, and counted on labelled images.

Everything that is known is in `NETWORK.json` as soon as it is known, so that a run that was cut short goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from placements.networks import BenchmarkNetwork

LEVEL = 3
MINUTES = 3.0
SECONDS = 0.05
"""Seconds of one engine in one round."""
BUDGET = 0.1
"""Percentage points of top-1 that a tuned engine may lose."""
TUNED = "tuned"
SOURCES = {
    "fp16": ("{name}.onnx", "fp16", None),
    "default": ("{name}.default.onnx", "int8", None),
    "modelopt": ("{name}.modelopt.onnx", "int8", None),
    "table": ("{name}.onnx", "int8", "{name}.calib"),
}
"""Engine → network, precision, table."""
AS_EXPORTED = "fp16 as exported"
"""FP16 without cleaning: what `trtexec --fp16` builds of the exported file."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The place of one network's files and of what is known about it.

    images: folder with train/ and test/. level, minutes: of the builder, and for tuning.
    """

    network: BenchmarkNetwork
    folder: Path
    images: Path | None
    say: Callable[[str], None] = print
    level: int = LEVEL
    minutes: float = MINUTES

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.network.name

    @property
    def record(self) -> Path:
        """The file of what is known."""
        return self.folder / f"{self.name}.json"

    @property
    def workshop(self) -> Path:
        """The folder of engines, with their timing cache, which all of them share."""
        return self.folder / "engines" / self.name

    @property
    def model(self) -> Path:
        """The float network, as exported."""
        return self.folder / f"{self.name}.onnx"

    def known(self) -> dict[str, Any]:
        """Return what is known."""
        found: dict[str, Any] = json.loads(self.record.read_text()) if self.record.exists() else {}
        return found

    def learn(self, key: str, value: Any) -> None:
        """Write one more thing that is known."""
        part = self.record.with_suffix(".part")
        part.write_text(json.dumps({**self.known(), key: value}, default=str))
        part.replace(self.record)

    def engines(self) -> dict[str, Path]:
        """Return the engines that exist, the tuned one last."""
        found = {kind: self.engine(kind) for kind in (*SOURCES, AS_EXPORTED)} | self.compared()
        if chosen := self.chosen("tuning"):
            found[TUNED] = chosen
        return {kind: path for kind, path in found.items() if path.exists()}

    def compared(self) -> dict[str, Path]:
        """Return the engines of SOURCES that tuning built and compared."""
        paths = self.known().get("tuning", {}).get("paths", {})
        return {kind: Path(path) for kind, path in paths.items() if kind in SOURCES}

    def chosen(self, key: str) -> Path | None:
        """Return the engine that a tuning chose."""
        tuning = self.known().get(key)
        return Path(tuning["paths"][tuning["chosen"]]) if tuning else None

    def engine(self, kind: str) -> Path:
        """Return the path of an engine."""
        return self.workshop / f"{self.name}.{kind.replace(' ', '-')}.engine"


def build_engines(bench: Bench) -> None:
    """Build all engines but the tuned one, whose networks exist."""
    from quantkit.backends.tensorrt.build import kernels_loaded

    bench.workshop.mkdir(parents=True, exist_ok=True)
    there = bench.compared()
    with kernels_loaded():
        for kind, (file, precision, table) in SOURCES.items():
            if kind not in there and kind not in bench.known().get("engines", {}):
                known = build_one(bench, kind, file, precision, table)
                bench.learn("engines", {**bench.known().get("engines", {}), kind: known})
                bench.say(f"built {bench.name} {kind}: {known.get('build_seconds', known.get('error'))}")


def build_as_exported(bench: Bench) -> None:
    """Build FP16 of the network as exported, where cleaning changes it."""
    known = bench.known().get("engines", {})
    if bench.name == "shared-head" and AS_EXPORTED not in known:
        bench.learn("engines", {**known, AS_EXPORTED: {"build_seconds": build_uncleaned(bench)}})


def build_one(bench: Bench, kind: str, file: str, precision: str, table: str | None) -> dict[str, Any]:
    """Build an engine; return what its record says, or the error."""
    import quantkit

    source = bench.folder / file.format(name=bench.name)
    if not source.exists():
        return {"error": f"there is no {source.name}"}
    try:
        made = quantkit.build(
            source, precision=precision, table=bench.folder / table.format(name=bench.name) if table else None,
            output=bench.engine(kind), shapes=shapes_of(bench), level=bench.level, force=True, retarget=True,
        )  # fmt: skip
    except quantkit.QuantkitError as error:
        return {"error": str(error)[:1000]}
    reformats = sum("eformat" in layer.name for layer in made.record.layers)
    return {
        "build_seconds": made.record.seconds,
        "bytes": made.record.bytes,
        "precisions": made.counts,
        "kernels": len(made.record.layers),
        "reformats": reformats,
        "notes": list(made.notes),
    }


def shapes_of(bench: Bench) -> str:
    """The range of batches: from the smallest to the largest, for the largest."""
    from quantkit.graph import load_model

    least, most = bench.network.batches
    return f"{load_model(bench.model).inputs[0].name}={least}:{most}:{most}"


def build_uncleaned(bench: Bench) -> float:
    """Build FP16 from the network as exported, which `quantkit.build` would clean; return the seconds."""
    from quantkit.backends.tensorrt.build import build_engine
    from quantkit.backends.tensorrt.options import BuildOptions, Precision
    from quantkit.backends.tensorrt.shapes import parse_shapes
    from quantkit.graph import load_model

    model = load_model(bench.model)
    options = BuildOptions(precision=Precision.FP16, level=bench.level)
    made = build_engine(model, options, parse_shapes((shapes_of(bench),), model.inputs))
    bench.engine(AS_EXPORTED).write_bytes(made.plan)
    return made.seconds


def tune_network(bench: Bench, key: str = "tuning") -> None:
    """Tune by time alone, which counting the correct images checks afterwards; the engines that were compared stay."""
    from quantkit.tuning.speed.tune import SpeedOptions, tune_speed

    if key in bench.known():
        return
    folder = bench.workshop if key == "tuning" else bench.folder / "engines" / f"{bench.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    options = SpeedOptions(batches=bench.network.batches, minutes=bench.minutes, level=bench.level)
    statistics = bench.model.with_suffix(".stats.safetensors")
    found = tune_speed(bench.model, statistics=statistics, folder=folder, options=options, phase=lambda _: None)
    paths = {c.name: c.engine for c in found.candidates if c.engine is not None}
    bench.learn(key, {**found.document(), "paths": paths})
    bench.say(f"{key} {bench.name}: {found.chosen.name}, {found.builds} builds, {found.seconds:.0f} s")
    for c in found.candidates:
        bench.say(f"    {c.name}: {c.outcome}, {c.seconds} s, { {b: round(t.median, 4) for b, t in c.times.items()} }")


def tune_within_budget(bench: Bench) -> None:
    """Run `tune --objective latency --max-drop`: half of the test images tune, the others report."""
    import quantkit

    if "within_budget" in bench.known() or not bench.network.labelled:
        return
    assert bench.images is not None
    folder = bench.folder / "engines" / f"{bench.name}-budget"
    found = quantkit.tune(
        bench.model, bench.images / "test", statistics=bench.model.with_suffix(".stats.safetensors"),
        preprocess="cifar10", max_drop=BUDGET, objective="latency", batches=bench.network.batches,
        tune_time=bench.minutes, level=bench.level, output=folder, force=True,
    )  # fmt: skip
    document = json.loads((folder / "tune.json").read_text())
    kept = ("verdict", "speed", "chosen", "tuned", "within_budget", "evaluations", "deploy")
    bench.learn("within_budget", {**{key: document[key] for key in kept}, "seconds": found.seconds})
    bench.say(f"tuned {bench.name} within {BUDGET}: {document['verdict']}")


def time_engines(bench: Bench) -> None:
    """Time all engines that exist, side by side."""
    from quantkit.engines.round_times import measure_rounds

    times = measure_rounds(bench.engines(), bench.network.batches, seconds=SECONDS)
    bench.learn("milliseconds", documented(times))
    bench.say(f"timed {bench.name}: { {k: {b: round(t.median, 4) for b, t in v.items()} for k, v in times.items()} }")


def documented(times: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Return times as JSON values."""
    return {
        kind: {
            str(batch): {"median": t.median, "spread": t.spread, "rounds": [round(x, 6) for x in t.rounds]}
            for batch, t in by_batch.items()
        }
        for kind, by_batch in times.items()
    }


def time_repetition(bench: Bench) -> None:
    """Time the two choices of a tuning and its repetition, side by side."""
    from quantkit.engines.round_times import measure_rounds

    paths = {key: path for key in ("tuning", "repeat") if (path := bench.chosen(key))}
    bench.learn("repeat_milliseconds", documented(measure_rounds(paths, bench.network.batches, seconds=SECONDS)))


def count_correct(bench: Bench) -> None:
    """Count the images that each engine classifies as labelled, of all 10,000, beside onnxruntime's in FP32."""
    if not bench.network.labelled:
        return
    from acceptance.explicit import on_cpu
    from acceptance.networks import test_images

    from quantkit.backends.tensorrt.engine import Engine

    assert bench.images is not None
    images, labels = test_images(bench.images / "test")
    guesses = {"fp32": on_cpu(bench.model, images)}
    for kind, path in bench.engines().items():
        with Engine.load(path) as engine:
            guesses[kind] = classify(engine, images, max(bench.network.batches))
    correct = {kind: int((found == labels).sum()) for kind, found in guesses.items()}
    bench.learn("correct", {"images": len(labels), "engines": correct})
    bench.say(f"counted {bench.name}: {correct}")


def classify(engine: Any, images: Any, size: int) -> Any:
    """Return the classes of all images, in batches that the engine takes."""
    batches = ({"image": images[k : k + size]} for k in range(0, len(images), size))
    return np.concatenate([outputs["logits"] for outputs in engine.run(batches, streams=2)]).argmax(axis=1)
