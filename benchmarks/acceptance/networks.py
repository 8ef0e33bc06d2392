"""Real networks through every precision: calibrated, built, run, and compared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import quantkit
from quantkit import CalibrateOptions, DataOptions, Preprocess
from quantkit.backends.session import open_session
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.timing import measure_latencies, measure_throughput
from quantkit.data import open_data
from quantkit.data.image_folder import list_images
from quantkit.data.preprocess_choice import choose_spec
from quantkit.engines.build import build
from quantkit.graph import load_model
from quantkit.table import diff, read_table

CIFAR = ("resnet20", "mobilenetv2", "vit")
BATCHES = (1, 32, 256)
SECONDS = 0.15
FACES = Preprocess(size=(240, 320), channels="rgb", mean=(127.0,), std=(128.0,))
WAYS: dict[str, tuple[str, str | None, bool]] = {
    "fp32": ("fp32", None, True),
    "tf32": ("tf32", None, True),
    "fp16": ("fp16", None, True),
    "int8 TensorRT's table": ("int8", "tensorrt", True),
    "int8 CPU's table": ("int8", "onnxruntime", True),
    "int8 CPU's table, no FP16": ("int8", "onnxruntime", False),
}


def test_images(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The 10,000 test images, preprocessed, and their classes."""
    found = list_images(folder)
    classes = sorted({Path(name).parts[0] for name in found.names})
    labels = np.array([classes.index(Path(name).parts[0]) for name in found.names])
    model_input = load_model_input()
    feed, _ = open_data(folder, [model_input], quantkit.PRESETS["cifar10"], DataOptions(limit=len(labels), threads=16))
    images = np.concatenate([portion.batch["image"] for portion in feed.portions()])
    return images, labels


def load_model_input() -> Any:
    """The input of the CIFAR-10 networks."""
    from quantkit.values import ModelInput

    return ModelInput("image", "float32", ("N", 3, 32, 32))


def calibrated(model: Path, data: Path, spec: Any, folder: Path, backend: str) -> dict[str, Any]:
    """A table of one backend, and how long it took."""
    output = folder / f"{model.stem}.{backend}.calib"
    batch = load_model(model).inputs[0].fixed_batch
    options = CalibrateOptions(data=DataOptions(batch_size=batch or 32, limit=512 if batch is None else 64))
    started = time.monotonic()
    options = replace(options, backend=backend)
    made = quantkit.calibrate(model, data, rule="entropy", preprocess=spec, output=output, options=options)
    return {"seconds": round(time.monotonic() - started, 2), "tensors": len(made.table), "batches": made.batches}


def agreement(ours: Path, theirs: Path) -> dict[str, Any]:
    """How closely two tables agree on the tensors that both have."""
    ratios = np.array(list(diff(read_table(theirs), read_table(ours)).ratios.values()))
    return {
        "common": len(ratios),
        "within_1e-5": round(float((np.abs(ratios - 1) < 1e-5).mean()), 4),
        "worst": float(np.abs(ratios - 1).max()),
    }


def reasons(record: Any) -> dict[str, int]:
    """Why layers are not INT8, in groups."""
    return dict(Counter(layer.reason.split("(")[0].split(":")[0].strip() for layer in record.layers if layer.reason))


def built(model: Path, way: str, folder: Path, level: int, shapes: tuple[str, ...]) -> Any:
    """The engine of one way."""
    precision, table, fp16 = WAYS[way]
    options = BuildOptions(precision=Precision(precision), fp16=fp16, level=level, shapes=shapes)
    path = folder / f"{model.stem}.{way.replace(' ', '-')}.engine"
    return build(model, options=options, table=folder / f"{model.stem}.{table}.calib" if table else None, output=path)


def of_engine(made: Any) -> dict[str, Any]:
    """What the record of an engine tells."""
    return {
        "build_seconds": made.record.seconds,
        "mebibytes": round(made.record.bytes / 2**20, 2),
        "precisions": made.counts,
        "why_not_int8": reasons(made.record),
        "coverage": made.record.table and round(made.record.table.share, 4),
        "completed": made.record.table and len(made.record.table.completed),
        "warnings": list(made.warnings),
    }


def timed(engine: Engine, batch: int) -> dict[str, float]:
    """Median device milliseconds, without and with a CUDA graph."""
    return {
        name: round(float(np.median(measure_latencies(engine, batch, seconds=SECONDS, graph=graph))), 4)
        for name, graph in (("plain", False), ("graph", True))
    }


def classifier(model: Path, shared: Path, folder: Path, images: Any, labels: Any) -> Iterator[dict[str, Any]]:
    """A CIFAR-10 network: tables, engines, top-1 on 10,000 images, latencies; yields after each engine."""
    data = shared / "golden" / "networks" / "calibration_512.npz"
    tables = {b: calibrated(model, data, "cifar10", folder, b) for b in ("tensorrt", "onnxruntime")}
    golden = shared / "golden" / "networks" / f"{model.stem}_entropy2.cache"
    tables["agreement"] = {
        "TensorRT's with the golden table": agreement(folder / f"{model.stem}.tensorrt.calib", golden),
        "CPU's with TensorRT's": agreement(
            folder / f"{model.stem}.onnxruntime.calib", folder / f"{model.stem}.tensorrt.calib"
        ),
    }
    engines: dict[str, Any] = {}
    reference = None
    for way in WAYS:
        made = built(model, way, folder, 1, ("image=1:32:256",))
        with Engine.load(made.path) as engine:
            batches = ({"image": images[k : k + 250]} for k in range(0, len(images), 250))
            scores = np.concatenate([out["logits"] for out in engine.run(batches, streams=2)])
            guesses = scores.argmax(axis=1)
            reference = guesses if reference is None else reference
            engines[way] = of_engine(made) | {
                "top1": float((guesses == labels).mean()),
                "agreement_with_fp32": float((guesses == reference).mean()),
                "latency_ms": {str(batch): timed(engine, batch) for batch in BATCHES},
                "images_per_second_with_copies": {
                    str(streams): round(measure_throughput(engine, 256, streams=streams, seconds=SECONDS, graph=True))
                    for streams in (1, 2, 4)
                },
            }
        yield {"tables": tables, "engines": engines}


def detector(model: Path, images: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """The face detector, which is fixed to one image: agreement with onnxruntime, latency."""
    tables = {b: calibrated(model, images, FACES, folder, b) for b in ("tensorrt", "onnxruntime")}
    tables["agreement"] = {
        "CPU's with TensorRT's": agreement(
            folder / f"{model.stem}.onnxruntime.calib", folder / f"{model.stem}.tensorrt.calib"
        )
    }
    loaded = load_model(model)
    spec = choose_spec(FACES, loaded, images)
    feed, _ = open_data(images, loaded.inputs, spec.spec, DataOptions(limit=16, seed=1, shuffle=True))
    batches = [portion.batch for portion in feed.portions()]
    run = open_session(loaded, loaded.outputs).runner()
    expected = [{name: value.copy() for name, value in run(batch).items()} for batch in batches]
    engines: dict[str, Any] = {}
    for way in WAYS:
        made = built(model, way, folder, 0, ())
        with Engine.load(made.path) as engine:
            outputs = list(engine.run(batches))
            engines[way] = of_engine(made) | {
                "sqnr_db": {name: sqnr(expected, outputs, name) for name in loaded.outputs},
                "latency_ms": {"1": timed(engine, 1)},
            }
        yield {"tables": tables, "engines": engines}


def sqnr(expected: Any, outputs: Any, name: str) -> float:
    """10·log10 of the reference's energy over the error's, in dB."""
    signal = sum(float(np.square(e[name], dtype=np.float64).sum()) for e in expected)
    noise = sum(
        float(np.square(e[name].astype(np.float64) - o[name]).sum()) for e, o in zip(expected, outputs, strict=True)
    )
    return round(10 * float(np.log10(signal / max(noise, 1e-30))), 1)
