"""Values for tests of the report: evaluations, sensitivities and statistics, by hand and by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency, Throughput
from quantkit.evaluation.result import (
    ChangedSample,
    ClassDrop,
    Confidence,
    Confusion,
    Device,
    Evaluation,
    IntervalMethod,
    MetricDifference,
    ModelKind,
    ModelScore,
    OutputDeviation,
    Speed,
)
from quantkit.histogram import HistogramMode
from quantkit.sensitivity.result import LayerError, Sensitivity, TensorError
from quantkit.statistics import Origin, Statistics, histogram_of

GPU = "NVIDIA H200, TensorRT 8.6.1"


def reference(**changes: Any) -> ModelScore:
    """The reference of the evaluations below."""
    given: dict[str, Any] = {
        "name": "net.onnx",
        "kind": ModelKind.FLOAT,
        "path": Path("/somewhere/secret/net.onnx"),
        "sha256": "a1" * 32,
        "bytes": 4_340_123,
        "metrics": {"top1": 0.9118, "top5": 0.9929},
        "speed": Speed(41012.0, 0.7803, 32, GPU, Device.GPU),
    }
    return ModelScore(**(given | changes))


def candidate(name: str = "net.int8.onnx", **changes: Any) -> ModelScore:
    """A candidate with everything that one can have."""
    given: dict[str, Any] = {
        "name": name,
        "kind": ModelKind.QDQ,
        "path": Path("net.int8.onnx"),
        "sha256": "b2" * 32,
        "bytes": 1_112_233,
        "metrics": {"top1": 0.9087, "top5": 0.9921},
        "speed": Speed(97123.0, 0.3301, 32, GPU, Device.GPU),
        "int8_layers": (21, 23),
        "difference": MetricDifference(0.31, 0.13, 0.49, 0.0042, 17, 48, IntervalMethod.CHANGED_SAMPLES),
        "agreement": 0.9873,
        "outputs": (OutputDeviation("logits", 31.27, 0.99951, 0.00213, 2.875),),
        "confidence": Confidence(0.8664, 0.8571, -0.93),
        "classes": (
            ClassDrop("cat", 1003, 0.8345, 0.8067, 2.78, 0.0007),
            ClassDrop("dog", 997, 0.8821, 0.8911, -0.9, 0.61),
        ),
        "confusions": (Confusion("cat", "cat", "dog", 29), Confusion("dog", "cat", "dog", 13)),
        "changed": (ChangedSample("cat/001.png", "cat", "cat", 0.731, "dog", 0.642),),
        "changed_samples": 127,
    }
    return ModelScore(**(given | changes))


def evaluation(*candidates: ModelScore, **changes: Any) -> Evaluation:
    """An evaluation on 10,000 samples."""
    given: dict[str, Any] = {
        "models": (reference(), *candidates),
        "samples": 10_000,
        "metric": "top1",
        "share": True,
        "verdict": tuple(f"{c.name} loses 0.31 percentage points, a significant loss." for c in candidates),
        "notes": ("Scored with fake-quantized numerics.",),
        "provenance": {"data": {"source": "val/", "samples": 10_000, "mean": [0.49, 0.48]}, "seed": None, "odd": [{}]},
        "seconds": 48.3,
        "max_drop": 0.25,
    }
    return Evaluation(**(given | changes))


def layer(node: str, share: float = 0.25, **changes: Any) -> LayerError:
    """A layer's error."""
    given: dict[str, Any] = {"alone_db": 37.4, "without_db": 32.9, "gain_db": 1.5, "local_db": 36.6, "parameters": 9408}
    return LayerError(node=node, operator="Conv", share=share, **(given | changes))


def sensitivity(*nodes: str) -> Sensitivity:
    """Layers and tensors of these names, the first the worst."""
    layers = tuple(layer(n, 0.5 / (i + 1), kept="asked for" if i == 1 else "") for i, n in enumerate(nodes))
    tensors = tuple(TensorError(n, n, i % 2 == 1, 0.0173, "mse", 33.3 + i, 0.00071, 211) for i, n in enumerate(nodes))
    return Sensitivity("net.onnx", "net.stats.safetensors by mse", 31.4, layers, tensors, 512, (), {"seed": 7}, 12.4)


def statistics(values: Mapping[str, Any]) -> Statistics:
    """Statistics of tensors with these values."""
    found = {n: histogram_of(np.asarray(v, np.float32), HistogramMode.INVARIANT) for n, v in values.items()}
    origin = Origin(
        model="0" * 64, data="0" * 64, samples=4, histogram=HistogramMode.INVARIANT, backend="fake", slice=4
    )
    return Statistics(found, (), {}, origin)


def bench() -> BenchResult:
    """Two engines at two batch sizes on a GPU."""
    subjects = (BenchSubject("net.fp16.engine", "fp16", 10, "m"), BenchSubject("net.int8.engine", "int8", 5, "m"))
    latencies = tuple(
        Latency(s.name, b, True, v * b, v * b * 1.1, v * b * 1.3, 640)
        for s, v in zip(subjects, (0.1234, 0.0871), strict=True)
        for b in (1, 32)
    )
    throughputs = (Throughput("net.int8.engine", 32, 2, True, 143210.0),)
    return BenchResult(GPU, True, subjects, latencies, throughputs, ("clocks were not locked",))


# ── any value ───────────────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "\"'><img src=x onerror=alert(1)>",
            "{{ 7*7 }}{% raw %}",
            "</style></title></svg>",
            "a" * 3000,
            "名前/層.0/ことば" * 40,
            "\u202etxet",
            "\ud800lone",
            "nul\x00\x1b[31m",
            "&amp;&lt;",
            "",
        ]
    ),
)
NUMBERS = st.one_of(
    st.floats(-100, 100),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e308, -1e308, 1e-320, 5e-7]),
)
COUNTS = st.integers(0, 10**9)
SPEEDS = st.one_of(
    st.builds(Speed, NUMBERS, st.none() | NUMBERS, st.integers(1, 64), st.just(GPU), st.just(Device.GPU)),
    st.builds(
        Speed, NUMBERS, st.none() | NUMBERS, st.integers(1, 64), st.just("onnxruntime, CPU"), st.just(Device.CPU)
    ),
)


def candidates_of(names: st.SearchStrategy[str]) -> st.SearchStrategy[ModelScore]:
    """Candidates with any parts missing and any numbers."""
    return st.builds(
        ModelScore,
        name=names,
        kind=st.sampled_from(list(ModelKind)),
        path=st.none(),
        sha256=st.just("c3" * 32),
        bytes=COUNTS,
        metrics=st.dictionaries(st.sampled_from(["top1", "top5", "map", "<b>"]), NUMBERS, max_size=3),
        speed=st.none() | SPEEDS,
        int8_layers=st.none() | st.tuples(st.integers(0, 300), st.integers(0, 300)),
        difference=st.none()
        | st.builds(
            MetricDifference,
            NUMBERS,
            NUMBERS,
            NUMBERS,
            NUMBERS,
            COUNTS,
            COUNTS,
            st.sampled_from(IntervalMethod),
            COUNTS,
        ),
        agreement=st.none() | NUMBERS,
        outputs=st.lists(
            st.builds(OutputDeviation, names, NUMBERS, NUMBERS, st.none() | NUMBERS, NUMBERS), max_size=2
        ).map(tuple),
        confidence=st.none() | st.builds(Confidence, NUMBERS, NUMBERS, NUMBERS),
        classes=st.lists(st.builds(ClassDrop, names, COUNTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3).map(
            tuple
        ),
        confusions=st.lists(st.builds(Confusion, names, names, names, COUNTS), max_size=3).map(tuple),
        changed=st.lists(st.builds(ChangedSample, names, names, names, NUMBERS, names, NUMBERS), max_size=3).map(tuple),
        changed_samples=COUNTS,
    )


EVALUATIONS = st.builds(
    Evaluation,
    models=st.lists(candidates_of(TEXTS), min_size=1, max_size=4).map(tuple),
    samples=COUNTS,
    metric=st.sampled_from([None, "top1", "map", "</svg>"]),
    share=st.booleans(),
    verdict=st.lists(TEXTS, max_size=3).map(tuple),
    notes=st.lists(TEXTS, max_size=2).map(tuple),
    provenance=st.dictionaries(
        TEXTS, st.recursive(st.none() | TEXTS | st.booleans() | NUMBERS, st.lists, max_leaves=4), max_size=3
    ),
    seconds=NUMBERS,
    max_drop=st.none() | st.floats(0, 100),
)
SENSITIVITIES = st.builds(
    Sensitivity,
    model=TEXTS,
    source=TEXTS,
    all_db=NUMBERS,
    layers=st.lists(
        st.builds(LayerError, TEXTS, TEXTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, COUNTS, TEXTS), max_size=4
    ).map(tuple),
    tensors=st.lists(
        st.builds(TensorError, TEXTS, TEXTS, st.booleans(), NUMBERS, TEXTS, NUMBERS, NUMBERS, COUNTS), max_size=4
    ).map(tuple),
    samples=COUNTS,
    notes=st.just(()),
    provenance=st.just({}),
    seconds=NUMBERS,
)
