"""A bench without a GPU: errors, notes, and the conclusions for each network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from quantkit.artifact import sha256_of
from quantkit.backends.engine_record import EngineRecord, engine_record_bytes, engine_record_path, is_engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.engines import bench as benching
from quantkit.engines.bench import BenchOptions, bench, distinct_names, measure_engine, read_engine_subject
from quantkit.engines.bench_builds import engine_name
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency, bench_verdicts
from quantkit.errors import BackendError, OutputError, UsageError
from quantkit.graph import Model, load_model
from quantkit.provenance import ModelRecord

TEXT = '<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { y = Conv(x, w) }'
QUICK = BenchOptions(batches=(1, 4), streams=(1, 2), seconds=0.001)


def network(folder: Path) -> Model:
    proto = parser.parse_model(TEXT)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"))
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / "net.onnx")
    return load_model(folder / "net.onnx")


def engine(path: Path, *, recorded: bytes | None) -> Path:
    """An engine file, with a record of an engine whose content is `recorded`."""
    path.write_bytes(b"an engine")
    if recorded is not None:
        record = EngineRecord(
            quantkit="1",
            file=path.name,
            sha256=sha256_of(recorded),
            bytes=len(recorded),
            tensorrt="8.6.1",
            gpu="NVIDIA H200",
            model=ModelRecord(file="net.onnx", sha256="m"),
            precision="fp16",
            shapes={},
            options={},
            seconds=2.5,
            device_memory=1,
            layers=(),
        )
        engine_record_path(path).write_bytes(engine_record_bytes(record))
    return path


# Requests --------------------------------------------------------------------------------------------------------


def test_a_subject_given_twice_is_measured_once() -> None:
    options = BenchOptions(batches=(8, 1, 8), streams=(2, 2), graphs=(True, True), precisions=("int8", "fp16", "int8"))
    assert (options.batches, options.streams) == ((8, 1), (2,))
    assert (options.graphs, options.precisions) == ((True,), ("int8", "fp16"))


def test_engines_of_several_precisions_need_a_folder(tmp_path: Path) -> None:
    for output in (tmp_path / "none", network(tmp_path).path):
        with pytest.raises(OutputError, match="is not a folder"):
            bench([tmp_path / "net.onnx"], output=output)


def test_names_are_unique() -> None:
    assert distinct_names([Path("a/x.engine"), Path("y.engine"), Path("b/x.engine")]) == [
        "a/x.engine",
        "y.engine",
        "b/x.engine",
    ]


def test_models_of_one_name_get_their_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benching, "has_driver", lambda: False)
    paths = [network(tmp_path / folder).path for folder in "ab"]
    made = bench(paths, options=QUICK)
    assert [s.name for s in made.subjects] == [str(path) for path in paths]
    assert {(x.subject, x.batch) for x in made.latencies} == {(str(p), b) for p in paths for b in (1, 4)}


def test_each_set_of_options_has_an_engine_of_its_own(tmp_path: Path) -> None:
    model = network(tmp_path)
    settings: list[dict[str, Any]] = [
        {},
        {"level": 5},
        {"fp16": False},
        {"shapes": ("x=1:8:8",)},
        {"shapes": ("x=1:8:9",)},
        {"precision": Precision.FP16},
    ]
    names = [engine_name(model, BuildOptions(**each), "H200, TensorRT 8.6.0") for each in settings]
    assert len(set(names)) == len(names)
    assert names[0] == engine_name(model, BuildOptions(), "H200, TensorRT 8.6.0")
    assert names[0] != engine_name(model, BuildOptions(), "H200, TensorRT 10.3.0")
    assert names[0].startswith("net.int8.")
    assert is_engine(Path(names[0]))


# Records of engines ---------------------------------------------------------------------------------------------


def test_a_record_describes_only_its_own_engine(tmp_path: Path) -> None:
    own, notes = read_engine_subject(engine(tmp_path / "own.engine", recorded=b"an engine"))
    assert (own.precision, own.model, own.build_seconds, own.bytes, notes) == ("fp16", "m", 2.5, 9, [])
    other, (note,) = read_engine_subject(engine(tmp_path / "other.engine", recorded=b"another"))
    assert (other.precision, other.model, other.build_seconds, other.bytes) == ("?", "", None, 9)
    assert note == "the record beside other.engine belongs to another engine and is not used"
    assert read_engine_subject(engine(tmp_path / "none.engine", recorded=None))[0].precision == "?"


# Measuring --------------------------------------------------------------------------------------------------------


def timed(monkeypatch: pytest.MonkeyPatch, latencies: Any, *, fits: bool = True) -> Any:
    """An engine whose latencies are made up."""
    monkeypatch.setattr("quantkit.backends.tensorrt.timing.takes_batch", lambda *_: fits)
    monkeypatch.setattr("quantkit.backends.tensorrt.timing.measure_latencies", latencies)
    monkeypatch.setattr(
        "quantkit.backends.tensorrt.timing.measure_throughput", lambda *_, streams, **__: 100.0 * streams
    )
    return SimpleNamespace(inputs=())


def test_an_impossible_cuda_graph_becomes_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def latencies(*_: Any, graph: bool, **__: Any) -> list[float]:
        if graph:
            raise BackendError("cuStreamEndCapture failed with CUDA error 901", remedy="")
        return [1.0, 2.0, 3.0]

    alone, together, notes = measure_engine(timed(monkeypatch, latencies), "e", QUICK, lambda _: None)
    assert [(x.batch, x.graph, x.median, x.runs) for x in alone] == [(1, False, 2.0, 3), (4, False, 2.0, 3)]
    assert [(x.batch, x.streams, x.rate) for x in together] == [(1, 1, 100), (1, 2, 200), (4, 1, 100), (4, 2, 200)]
    assert notes == [
        f"e: no CUDA graph at batch {batch}: cuStreamEndCapture failed with CUDA error 901" for batch in (1, 4)
    ]


def test_an_error_without_a_graph_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    error = BackendError("no room", remedy="")

    def latencies(*_: Any, **__: Any) -> list[float]:
        raise error

    with pytest.raises(BackendError) as caught:
        measure_engine(timed(monkeypatch, latencies), "e", QUICK, lambda _: None)
    assert caught.value is error


def test_no_latencies_with_a_graph_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timed(monkeypatch, lambda *_, graph, **__: [] if graph else [1.0])
    alone, together, notes = measure_engine(made, "e", QUICK, lambda _: None)
    assert not any(x.graph for x in alone)
    assert not any(x.graph for x in together)
    assert set(notes) == {"e: no CUDA graph, because the shape of an output depends on the data"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake GPU machine whose engines report only their size."""

    class Loaded:
        memory, inputs = 7, ()

        @classmethod
        def load(cls, *_: Any, **__: Any) -> Loaded:
            return cls()

        def __enter__(self) -> Loaded:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(benching, "explain_no_gpu", lambda _: None)
    monkeypatch.setattr("quantkit.backends.tensorrt.engine.Engine", Loaded)
    monkeypatch.setattr("quantkit.backends.tensorrt.device.open_device", lambda _: SimpleNamespace(name="H200"))
    monkeypatch.setattr("quantkit.backends.tensorrt.versions.tensorrt", lambda: None)
    monkeypatch.setattr(
        "quantkit.backends.tensorrt.versions.detect_features", lambda _: SimpleNamespace(version="8.6.1")
    )


@pytest.mark.usefixtures("gpu")
def test_the_error_says_why_nothing_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timed(monkeypatch, None, fits=False)
    path = engine(tmp_path / "x.engine", recorded=None)
    with pytest.raises(
        UsageError, match=r"nothing could be measured: x\.engine was not built for batch 1; x"
    ) as caught:
        bench([path], options=QUICK)
    assert "--batch" in caught.value.remedy


@pytest.mark.usefixtures("gpu")
def test_engines_are_measured_under_names_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timed(monkeypatch, lambda *_, **__: [1.0])
    (tmp_path / "b").mkdir()
    paths = [engine(tmp_path / "x.engine", recorded=b"an engine"), engine(tmp_path / "b" / "x.engine", recorded=b"n")]
    made = bench(paths, options=QUICK)
    assert [(s.name, s.precision, s.memory) for s in made.subjects] == [
        (str(paths[0]), "fp16", 7),
        (str(paths[1]), "?", 7),
    ]
    assert {x.subject for x in made.latencies} == set(map(str, paths))
    assert made.notes == ("the record beside x.engine belongs to another engine and is not used",)
    assert (made.machine, made.on_gpu) == ("H200, TensorRT 8.6.1", True)


# Conclusions ------------------------------------------------------------------------------------------------------


def of(*figures: tuple[str, str, str, float]) -> BenchResult:
    """Name, precision, network and median of each subject."""
    return BenchResult(
        "H200",
        True,
        tuple(BenchSubject(name, precision, 1, model) for name, precision, model, _ in figures),
        tuple(Latency(name, 1, False, time, time, time, 9) for name, _, _, time in figures),
    )


def test_networks_are_not_compared_with_each_other() -> None:
    said = bench_verdicts(of(("a.fp32", "fp32", "a", 4.0), ("b.fp32", "fp32", "b", 1.0), ("a.fp16", "fp16", "a", 2.0)))
    assert said == (
        "a: FP16 against FP32: 2.00× as fast at batch 1 (2.000 against 4.000 ms)",
        "a: for batch 1 take FP16 (a.fp16): 2.000 ms, 500 samples/s",
    )


def test_one_network_needs_no_name() -> None:
    said = bench_verdicts(of(("a.fp32", "fp32", "a", 4.0), ("b.fp16", "fp16", "a", 4.2)))
    assert said[0] == "FP16 against FP32: slower at batch 1 (4.200 against 4.000 ms)"
    assert said[1].startswith("for batch 1 take FP32 (a.fp32)")


def test_engines_of_unknown_networks_are_compared_with_nothing() -> None:
    assert bench_verdicts(of(("a.engine", "?", "", 4.0), ("b.engine", "?", "", 1.0))) == ()


def test_the_faster_of_two_int8_engines_is_compared() -> None:
    times = {"a.fp16": 2.0, "a.int8": 1.0, "a.qdq": 4.0}
    subjects = tuple(BenchSubject(n, "fp16" if n == "a.fp16" else "int8", 1, "m") for n in times)
    latencies = tuple(Latency(n, 8, True, t, t, t, 9) for n, t in times.items())
    for order in (subjects, subjects[::-1]):
        said = bench_verdicts(BenchResult("GPU", True, order, latencies))
        assert "INT8 against FP16: 2.00× as fast at batch 8 (1.000 against 2.000 ms)" in said
