"""Q/DQ models as engines: do they build, are they as accurate as onnxruntime says, how fast beside FP16 and a table.

Models lie in a folder as `<network>.<what>.onnx`; the floats of the same networks in `models/`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from acceptance.networks import of_engine, timed
from quantkit.backends.session import open_session
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.engines.build import build
from quantkit.errors import QuantkitError
from quantkit.graph import load_model

BATCHES = (1, 32, 256)
SHAPES = ("image=1:32:256",)


def guesses_of(engine: Engine, images: Any) -> Any:
    """Classes of all images."""
    batches = ({"image": images[k : k + 250]} for k in range(0, len(images), 250))
    return np.concatenate([out["logits"] for out in engine.run(batches, streams=2)]).argmax(axis=1)


def on_cpu(model: Path, images: Any) -> Any:
    """Classes of all images by onnxruntime; from `x.guesses.npy` where they were computed before."""
    there = model.with_suffix(".guesses.npy")
    if there.exists():
        return np.load(there)
    loaded = load_model(model)
    run = open_session(loaded, loaded.outputs, threads=16).runner()
    return np.concatenate(
        [run({"image": images[k : k + 250]})["logits"].argmax(axis=1) for k in range(0, len(images), 250)]
    )


def layer_kinds(record: Any) -> dict[str, int]:
    """What the layers are: reformats are what a placement should avoid."""
    kinds = Counter("reformat" if "eformat" in layer.name else "layer" for layer in record.layers)
    return dict(kinds)


def measured(network: str, folder: Path, qdq: Path, models: Path, images: Any, labels: Any) -> Iterator[dict[str, Any]]:
    """Every Q/DQ model of a network, FP16, and the engine of a table where there is one; yields after each of them."""
    found: dict[str, Any] = {}
    subjects: dict[str, tuple[Path, BuildOptions, Path | None]] = {
        "fp16": (models / f"{network}.onnx", BuildOptions(precision=Precision.FP16, level=1, shapes=SHAPES), None)
    }
    if (table := qdq / f"{network}.calib").exists():
        options = BuildOptions(precision=Precision.INT8, level=1, shapes=SHAPES, retarget=True)
        subjects["int8, table"] = (models / f"{network}.onnx", options, table)
    # quantkit's last: what was timed before it has found the fast kernels for both
    for path in sorted(qdq.glob(f"{network}.*.onnx"), key=lambda path: ("modelopt" not in path.name, path.name)):
        options = BuildOptions(precision=Precision.INT8, level=1, shapes=SHAPES)
        subjects[path.name[len(network) + 1 : -5]] = (path, options, None)
    for name, (path, options, table) in subjects.items():
        started = time.monotonic()
        try:
            made = build(
                path, options=options, table=table, output=folder / f"{network}.{name.replace(' ', '')}.engine"
            )
            with Engine.load(made.path) as engine:
                guesses = guesses_of(engine, images)
                found[name] = of_engine(made) | {
                    "kinds": layer_kinds(made.record),
                    "top1": float((guesses == labels).mean()),
                    "latency_ms": {str(batch): timed(engine, batch) for batch in BATCHES},
                }
        except QuantkitError as error:
            found[name] = {"error": str(error)}
            yield found
            continue
        if path.parent == qdq:
            there = on_cpu(path, images)
            found[name] |= {
                "top1_onnxruntime": float((there == labels).mean()),
                "agreement_with_onnxruntime": float((there == guesses).mean()),
            }
        found[name]["not_int8"] = [layer.name[:160] for layer in made.record.layers if layer.precision != "INT8"]
        print(f"{network} {name}: {time.monotonic() - started:.1f} s", flush=True)
        yield found
