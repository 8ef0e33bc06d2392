"""`quantkit export triton`: the repository says what the model is, Triton's protocol buffers read it, and it serves
what our own pipeline computes, bit for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from tritonclient.grpc import model_config_pb2

from quantkit.artifact import sha256_of
from quantkit.backends.engine_record import EngineRecord, TensorRecord, engine_record_bytes, engine_record_path
from quantkit.backends.session import open_session
from quantkit.data.pixels import decode
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency, Throughput
from quantkit.errors import (
    BackendError,
    DataError,
    ModelError,
    OutputError,
    PreprocessError,
    QuantkitError,
    StaleError,
    UsageError,
)
from quantkit.export.serving import read_served_model
from quantkit.export.text import Remark, Word, pbtxt
from quantkit.export.triton import TritonExport, TritonOptions, export_triton
from quantkit.extras import install_command
from quantkit.graph import load_model
from quantkit.preprocess import PRESETS, load_preprocess, resolve_spec
from quantkit.provenance import ModelRecord
from quantkit.view import CONTROL
from tests.support.serving import Server, config_of, type_name

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "calibration_data"
PLAN = b"an engine"
NET = '<ir_version: 8, opset_import: ["": 17]> net (float[{batch}, 3, 8, 8] x) => (float[{batch}, 4] y) {{ {body} }}'
BODY = "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, w)"
QDQ = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, w)"


def network(folder: Path, batch: str = "N", body: str = BODY, name: str = "net") -> Path:
    proto = parser.parse_model(NET.format(batch=batch, body=body))
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for weight, called in ((values, "w"), (np.float32(0.02), "s"), (np.int8(0), "z")):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(weight), called))
    onnx.save(proto, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def engine(folder: Path, *, name: str = "net.h200.10.3.0.int8", **changed: Any) -> Path:
    """An engine with its record."""
    path = folder / f"{name}.engine"
    path.write_bytes(PLAN)
    settings: dict[str, Any] = {
        "quantkit": "1",
        "file": path.name,
        "sha256": sha256_of(PLAN),
        "bytes": len(PLAN),
        "tensorrt": "10.3.0",
        "gpu": "NVIDIA H200",
        "model": ModelRecord(file="net.onnx", sha256="m"),
        "precision": "int8",
        "shapes": {"x": "1x3x8x8:8x3x8x8:32x3x8x8"},
        "options": {},
        "seconds": 1.0,
        "device_memory": 1,
        "layers": (),
        "inputs": (TensorRecord(name="x", dtype="float32", shape=(-1, 3, 8, 8)),),
        "outputs": (TensorRecord(name="y", dtype="float16", shape=(-1, 4)),),
    }
    engine_record_path(path).write_bytes(engine_record_bytes(EngineRecord(**{**settings, **changed})))
    return path


def measured(folder: Path, *throughputs: tuple[int, int, bool, float], **changed: Any) -> Path:
    """A bench of the engine: batch, streams, graph, rate."""
    subject = BenchSubject(**{"name": "e", "precision": "int8", "bytes": len(PLAN), "model": "m", **changed})
    found = tuple(Throughput("e", *figures) for figures in throughputs)
    made = BenchResult("H200", True, (subject,), (), found)
    path = folder / "bench.json"
    path.write_text(json.dumps({**asdict(made), "verdict": ["fast"]}))
    return path


def ports(config: Any) -> list[tuple[str, str, list[int]]]:
    return [(p.name, type_name(p), list(p.dims)) for p in (*config.input, *config.output)]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(kind: type[QuantkitError], match: str, *arguments: Any, **how: Any) -> None:
    with pytest.raises(kind, match=match):
        export_triton(*arguments, **how)


# ── engines ──


def test_an_engine_is_served_as_its_record_says(tmp_path: Path) -> None:
    made = export_triton(engine(tmp_path), tmp_path / "repo", preprocess="none")
    assert (made.models, made.max_batch, made.checked) == (("net_h200_10_3_0_int8",), 32, True)
    config = config_of(tmp_path / "repo", made.models[0])
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 32)
    assert ports(config) == [("x", "TYPE_FP32", [3, 8, 8]), ("y", "TYPE_FP16", [4])]
    assert [(g.count, g.kind) for g in config.instance_group] == [(1, model_config_pb2.ModelInstanceGroup.KIND_GPU)]
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.preferred_batch_size
    assert config.version_policy.latest.num_versions == 1
    assert [(w.batch_size, list(w.inputs["x"].dims), w.inputs["x"].zero_data) for w in config.model_warmup] == [
        (1, [3, 8, 8], True),
        (32, [3, 8, 8], True),
    ]
    assert (tmp_path / "repo" / made.models[0] / "1" / "model.plan").read_bytes() == PLAN
    text = (tmp_path / "repo" / made.models[0] / "config.pbtxt").read_text()
    assert "nothing was measured" in text
    assert "for NVIDIA H200 with TensorRT 10.3.0, which Triton's image has to contain" in text


def test_a_batch_that_is_fixed_is_part_of_the_shape(tmp_path: Path) -> None:
    fixed = (
        TensorRecord(name="x", dtype="float32", shape=(4, 3, 8, 8)),
        TensorRecord(name="y", dtype="int64", shape=(4,)),
    )
    path = engine(tmp_path, inputs=fixed[:1], outputs=fixed[1:], shapes={"x": "4x3x8x8:4x3x8x8:4x3x8x8"})
    made = export_triton(path, tmp_path / "repo", options=TritonOptions(name="net"))
    config = config_of(tmp_path / "repo", "net")
    assert config.max_batch_size == 0
    assert ports(config) == [("x", "TYPE_FP32", [4, 3, 8, 8]), ("y", "TYPE_INT64", [4])]
    assert not config.HasField("dynamic_batching")
    assert [(w.batch_size, list(w.inputs["x"].dims)) for w in config.model_warmup] == [(1, [4, 3, 8, 8])]
    assert "the first dimension of 'x' is fixed" in made.notes[0]
    with pytest.raises(UsageError, match="max_batch=4 is impossible: the first dimension of 'x' is fixed"):
        export_triton(path, tmp_path / "other", options=TritonOptions(max_batch=4))


def test_an_engine_that_takes_no_single_requests_gets_no_batches(tmp_path: Path) -> None:
    path = engine(tmp_path, shapes={"x": "4x3x8x8:8x3x8x8:32x3x8x8"})
    made = export_triton(path, tmp_path / "repo")
    assert made.max_batch == 0
    assert "batches of at least 4" in made.notes[0]
    assert ports(config_of(tmp_path / "repo", made.models[0]))[0] == ("x", "TYPE_FP32", [-1, 3, 8, 8])


def test_what_has_only_a_batch_is_reshaped(tmp_path: Path) -> None:
    """Triton has no empty dims."""
    path = engine(tmp_path, outputs=(TensorRecord(name="class", dtype="int32", shape=(-1,)),))
    made = export_triton(path, tmp_path / "repo", preprocess="cifar10")
    (output,) = config_of(tmp_path / "repo", made.models[0]).output
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == ([1], True, [])
    # the ensemble has it as Triton shows it
    (output,) = config_of(tmp_path / "repo", made.models[2]).output
    assert (list(output.dims), output.HasField("reshape")) == ([1], False)


def test_triton_has_no_scalars(tmp_path: Path) -> None:
    path = engine(tmp_path, outputs=(TensorRecord(name="loss", dtype="float32", shape=()),))
    refused(ModelError, "'loss' is a scalar, which Triton does not support", path, tmp_path / "repo")


@pytest.mark.parametrize("there", [True, False])
def test_an_engine_with_unknown_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr("quantkit.export.serving.has_driver", lambda: False)
    path = engine(tmp_path, inputs=(), outputs=())
    if not there:
        engine_record_path(path).unlink()
    why = "is from an older quantkit" if there else "is missing"
    refused(BackendError, f"the record beside it {why}.*no GPU to read", path, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_without_a_record_tensors_are_read_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = engine(tmp_path)
    expected = read_served_model(path)
    engine_record_path(path).unlink()
    monkeypatch.setattr("quantkit.export.serving.has_driver", lambda: True)

    class Loaded:
        bindings = (
            SimpleNamespace(name="x", dtype="float32", shape=(-1, 3, 8, 8), is_input=True),
            SimpleNamespace(name="y", dtype="float16", shape=(-1, 4), is_input=False),
        )

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def least(self, name: str) -> tuple[int, ...]:
            return {"x": (1, 3, 8, 8)}[name]

        def most(self, name: str) -> tuple[int, ...]:
            return {"x": (32, 3, 8, 8)}[name]

    monkeypatch.setattr("quantkit.backends.tensorrt.engine.Engine.load", lambda *_, **__: Loaded())
    told = read_served_model(path)
    assert (told.inputs, told.outputs, told.max_batch, told.unbatched) == (expected.inputs, expected.outputs, 32, "")


def test_an_engine_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = engine(tmp_path, sha256="other")
    refused(StaleError, "was modified after quantkit wrote its record", path, tmp_path / "repo")
    refused(BackendError, "none.engine: No such file", tmp_path / "none.engine", tmp_path / "repo")


def test_a_type_that_triton_does_not_have(tmp_path: Path) -> None:
    path = engine(tmp_path, outputs=(TensorRecord(name="y", dtype="fp8", shape=(-1, 4)),))
    refused(ModelError, "'y' is fp8, which Triton does not support", path, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


# ── measured ──


def test_batches_and_instances_are_those_of_the_best_throughput(tmp_path: Path) -> None:
    bench = measured(
        tmp_path, (1, 1, False, 900.0), (8, 2, True, 8000.0), (32, 4, False, 8100.0), (64, 1, True, 9999.0)
    )
    made = export_triton(engine(tmp_path), tmp_path / "repo", bench=bench, options=TritonOptions(name="net"))
    assert made.tuning is not None
    # 8 by 2 is as good as 32 by 4 within 3 %, and 64 is more than the engine takes
    assert (made.tuning.batch, made.tuning.streams, made.tuning.graph) == (8, 2, True)
    config = config_of(tmp_path / "repo", "net")
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert config.dynamic_batching.max_queue_delay_microseconds == round(1e6 * 8 / 8000)
    assert config.instance_group[0].count == 2
    assert config.optimization.cuda.graphs
    assert config.max_batch_size == 32
    assert [w.batch_size for w in config.model_warmup] == [1, 8]
    assert "8,000 samples/s (H200)" in (tmp_path / "repo/net/config.pbtxt").read_text()


def test_what_is_fastest_alone_is_not_batched(tmp_path: Path) -> None:
    bench = measured(tmp_path, (1, 3, False, 900.0), (8, 1, False, 500.0))
    export_triton(engine(tmp_path), tmp_path / "repo", bench=bench, options=TritonOptions(name="net"))
    config = config_of(tmp_path / "repo", "net")
    assert not config.HasField("dynamic_batching")
    assert (config.instance_group[0].count, config.optimization.cuda.graphs) == (3, False)


def test_only_batches_that_will_be_served_count(tmp_path: Path) -> None:
    """Else a queue waits for a batch of 8 where none of more than 4 is made."""
    bench = measured(tmp_path, (1, 3, False, 900.0), (4, 2, False, 3000.0), (8, 1, True, 8000.0))
    how = {"bench": bench, "options": TritonOptions(name="net", max_batch=6)}
    made = export_triton(engine(tmp_path), tmp_path / "repo", **how)
    assert made.tuning is not None
    assert (made.tuning.batch, made.tuning.streams, made.tuning.graph, made.max_batch) == (4, 2, False, 6)
    assert "batches of 4" in made.tuning.why
    assert "batches of 6 were not measured" in made.tuning.why
    config = config_of(tmp_path / "repo", "net")
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == round(1e6 * 4 / 3000)
    how["options"] = TritonOptions(name="net", max_batch=4)
    told = export_triton(engine(tmp_path), tmp_path / "whole", **how).tuning
    assert told is not None
    assert "not measured" not in told.why
    how["options"] = TritonOptions(name="net", max_batch=0)
    told = export_triton(engine(tmp_path), tmp_path / "single", **how).tuning
    assert told is not None
    assert (told.batch, told.streams) == (1, 3)


def test_single_requests_alone_say_nothing_of_batches(tmp_path: Path) -> None:
    bench = measured(tmp_path, (1, 3, False, 900.0), (8, 1, True, 8000.0))
    options = TritonOptions(name="net", max_batch=4)
    made = export_triton(engine(tmp_path), tmp_path / "repo", bench=bench, options=options)
    assert made.tuning is not None
    assert (made.tuning.batch, made.tuning.streams) == (1, 3)
    config = config_of(tmp_path / "repo", "net")
    assert config.HasField("dynamic_batching")
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert [w.batch_size for w in config.model_warmup] == [1]


def test_a_bench_without_batches_that_will_be_served_is_refused(tmp_path: Path) -> None:
    bench = measured(tmp_path, (8, 2, True, 8000.0), (16, 2, True, 8500.0))
    options = TritonOptions(max_batch=4)
    match = r"batches of 8, 16, but none for batches of up to 4 .*\n.*--batch 4"
    refused(StaleError, match, engine(tmp_path), tmp_path / "repo", bench=bench, options=options)


@pytest.mark.parametrize("changed", [{"bytes": 1}, {"model": "other"}, {"precision": "fp16"}])
def test_figures_of_another_engine_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    bench = measured(tmp_path, (8, 2, True, 8000.0), **changed)
    refused(StaleError, "has no figures for net.*it has e", engine(tmp_path), tmp_path / "repo", bench=bench)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": "x"}'])
def test_a_file_without_a_benchmark_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bench.json").write_text(content)
    refused(
        DataError, "is not the result of a benchmark", engine(tmp_path), tmp_path / "r", bench=tmp_path / "bench.json"
    )
    refused(DataError, "No such file", engine(tmp_path), tmp_path / "r", bench=tmp_path / "none.json")


def test_cpu_figures_apply_to_onnxruntime_only(tmp_path: Path) -> None:
    path = network(tmp_path)
    figures = Latency("net.onnx", 16, False, 2.0, 2.0, 2.0, 9)
    made = BenchResult("x86", False, (BenchSubject("net.onnx", "fp32", 1, load_model(path).sha256),), (figures,))
    (tmp_path / "bench.json").write_text(json.dumps(asdict(made)))
    done = export_triton(path, tmp_path / "repo", bench=tmp_path / "bench.json")
    assert done.tuning is not None
    assert (done.tuning.batch, done.max_batch, done.tuning.delay) == (16, 16, 2000)
    options = TritonOptions(accelerator="tensorrt", force=True)
    refused(StaleError, "as it will run", path, tmp_path / "repo", bench=tmp_path / "bench.json", options=options)


# ── ONNX ──


def test_the_accelerator_takes_int8_from_q_dq(tmp_path: Path) -> None:
    path = network(tmp_path, body=QDQ)
    export_triton(path, tmp_path / "repo", options=TritonOptions(accelerator="tensorrt", max_batch=16))
    config = config_of(tmp_path / "repo", "net")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "INT8",
        "trt_profile_min_shapes": "x:1x3x8x8",
        "trt_profile_opt_shapes": "x:16x3x8x8",
        "trt_profile_max_shapes": "x:16x3x8x8",
    }
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    for precision in ("fp16", "fp32"):
        options = TritonOptions(accelerator="tensorrt", precision=precision)
        refused(UsageError, "has Q/DQ pairs", path, tmp_path / "other", options=options)


def test_a_float_model_is_accelerated_in_float(tmp_path: Path) -> None:
    path = network(tmp_path)
    for precision, told in ((None, "FP32"), ("fp16", "FP16")):
        options = TritonOptions(accelerator="tensorrt", precision=precision, force=True)
        export_triton(path, tmp_path / "repo", options=options)
        (found,) = config_of(tmp_path / "repo", "net").optimization.execution_accelerators.gpu_execution_accelerator
        assert found.parameters["precision_mode"] == told
    options = TritonOptions(accelerator="tensorrt", precision="int8", force=True)
    refused(UsageError, "no Q/DQ pairs and thus no scales", path, tmp_path / "repo", options=options)
    refused(
        UsageError,
        "needs no accelerator",
        engine(tmp_path),
        tmp_path / "r",
        options=TritonOptions(accelerator="tensorrt"),
    )


def test_without_accelerator_onnxruntime_runs_where_it_can(tmp_path: Path) -> None:
    made = export_triton(network(tmp_path), tmp_path / "repo")
    config = config_of(tmp_path / "repo", "net")
    assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 8)
    assert not config.HasField("optimization")
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
    assert made.notes == ("preprocessing is unknown (--preprocess): no ensemble for images and no client were written",)


def test_weights_outside_the_model_come_along(tmp_path: Path) -> None:
    path = network(tmp_path)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    export_triton(path, tmp_path / "repo")
    assert set(tree(tmp_path / "repo")) == {"net/config.pbtxt", "net/1/model.onnx", "net/1/net.data"}
    x = np.ones((2, 3, 8, 8), np.float32)
    assert Server(tmp_path / "repo").infer("net", {"x": x})["y"].shape == (2, 4)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx", size_threshold=0)
    refused(ModelError, "stores weights in model.onnx", path, tmp_path / "other")


def test_an_output_that_does_not_follow_the_batch_forbids_batches(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    made = export_triton(tmp_path / "net.onnx", tmp_path / "repo")
    config = config_of(tmp_path / "repo", "net")
    assert (made.max_batch, ports(config)) == (0, [("x", "TYPE_FP32", [-1, 3]), ("y", "TYPE_INT64", [2, -1])])
    assert made.notes[0] == "batching is off: the first dimension of output 'y' is not known to be the batch"
    assert "y' is not known to be the batch" in (tmp_path / "repo/net/config.pbtxt").read_text()


# ── images ──


def chained(repo: Path, name: str, images: list[bytes], spec: Any, path: Path) -> tuple[Any, Any]:
    """What the ensemble and what our own pipeline make of images."""
    from quantkit.data.pixels import pixels_of

    model = load_model(path)
    own = resolve_spec(spec, model.inputs[0])
    server = Server(repo)
    feed = np.stack([pixels_of(content, own) for content in images])
    served_outputs = server.infer(f"{name}_ensemble", {"pixels": feed})
    session = open_session(model, model.outputs, threads=1)
    expected = session.runner()({model.inputs[0].name: np.stack([decode(content, own) for content in images])})
    return served_outputs, expected


def test_the_ensemble_is_our_pipeline_on_the_bundled_images(tmp_path: Path) -> None:
    made = export_triton(DIGITS / "model.onnx", tmp_path / "repo", options=TritonOptions(name="digits", max_batch=64))
    assert made.models == ("digits", "digits_preprocess", "digits_ensemble")
    images = [p.read_bytes() for p in sorted((DIGITS / "images").rglob("*.png"))[:64]]
    assert len(images) == 64
    spec = load_preprocess(DIGITS / "preprocess.toml")
    ours, expected = chained(tmp_path / "repo", "digits", images, spec, DIGITS / "model.onnx")
    assert list(ours) == list(expected) == ["logits"]
    assert ours["logits"].tobytes() == expected["logits"].tobytes()
    assert len(set(ours["logits"].argmax(1).tolist())) > 3


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("body", [BODY, QDQ], ids=["float", "qdq"])
def test_the_ensemble_is_our_pipeline_with_every_preset(tmp_path: Path, preset: str, body: str) -> None:
    import io

    from PIL import Image

    random = np.random.default_rng(5)
    images = []
    for size in ((11, 17), (8, 8), (32, 9)):
        stored = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (*size, 3)).astype(np.uint8)).save(stored, "JPEG")
        images.append(stored.getvalue())
    path = network(tmp_path, body=body)
    export_triton(path, tmp_path / "repo", preprocess=preset)
    ours, expected = chained(tmp_path / "repo", "net", images, PRESETS[preset], path)
    assert ours["y"].tobytes() == expected["y"].tobytes()


@pytest.mark.shared
def test_the_ensemble_is_our_pipeline_on_a_trained_network(tmp_path: Path, shared: Path) -> None:
    import io

    from PIL import Image

    path = shared / "models" / "resnet20.onnx"
    export_triton(path, tmp_path / "repo", preprocess="cifar10")
    random = np.random.default_rng(1)
    images = []
    for _ in range(8):
        stored = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(stored, "PNG")
        images.append(stored.getvalue())
    ours, expected = chained(tmp_path / "repo", "resnet20", images, PRESETS["cifar10"], path)
    assert ours["logits"].tobytes() == expected["logits"].tobytes()


def test_a_fixed_batch_goes_through_the_ensemble(tmp_path: Path) -> None:
    path = network(tmp_path, batch="2")
    made = export_triton(path, tmp_path / "repo", preprocess="cifar10")
    assert made.max_batch == 0
    assert ports(config_of(tmp_path / "repo", "net_ensemble"))[0] == ("pixels", "TYPE_UINT8", [2, 8, 8, 3])
    assert Server(tmp_path / "repo").infer("net_ensemble", {"pixels": np.zeros((2, 8, 8, 3), np.uint8)})["y"].shape == (
        2,
        4,
    )


def test_an_engine_gets_its_ensemble_from_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "preprocess.toml").write_text('preset = "imagenet"\n')
    made = export_triton(engine(tmp_path), tmp_path / "repo", options=TritonOptions(name="net"))
    assert made.preprocess is not None
    assert made.preprocess.size == (8, 8)
    assert ports(config_of(tmp_path / "repo", "net_preprocess")) == [
        ("pixels", "TYPE_UINT8", [8, 8, 3]),
        ("x", "TYPE_FP32", [3, 8, 8]),
    ]
    ensemble = config_of(tmp_path / "repo", "net_ensemble")
    assert ports(ensemble) == [("pixels", "TYPE_UINT8", [8, 8, 3]), ("y", "TYPE_FP16", [4])]
    assert ensemble.max_batch_size == 32
    assert export_triton(engine(tmp_path), tmp_path / "plain", preprocess="none").models == ("net_h200_10_3_0_int8",)


def test_other_inputs_pass_through_the_ensemble(tmp_path: Path) -> None:
    more = (
        TensorRecord(name="pixels", dtype="float32", shape=(-1, 3, 8, 8)),
        TensorRecord(name="weight", dtype="float32", shape=(-1,)),
    )
    shapes = {"pixels": "1x3x8x8:8x3x8x8:8x3x8x8", "weight": "1:8:8"}
    made = export_triton(engine(tmp_path, inputs=more, shapes=shapes), tmp_path / "repo", preprocess="cifar10")
    ensemble = config_of(tmp_path / "repo", made.models[-1])
    # its own name for the pixels, since the model's input is called so
    assert [p.name for p in ensemble.input] == ["pixels_", "weight"]
    first, second = ensemble.ensemble_scheduling.step
    assert (dict(first.input_map), dict(first.output_map)) == ({"pixels": "pixels_"}, {"pixels": "pixels"})
    assert dict(second.input_map) == {"pixels": "pixels", "weight": "weight"}
    assert not (tmp_path / "repo" / made.models[-1] / "client.py").exists()


def test_preprocessing_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = engine(
        tmp_path, inputs=(TensorRecord(name="x", dtype="float32", shape=(-1, 7)),), shapes={"x": "1x7:1x7:8x7"}
    )
    refused(PreprocessError, "0 inputs that can be images", path, tmp_path / "repo", preprocess="cifar10")
    (tmp_path / "preprocess.toml").write_text('preset = "cifar10"\n')
    assert "no ensemble" in export_triton(path, tmp_path / "repo").notes[0]
    eight = engine(tmp_path, inputs=(TensorRecord(name="x", dtype="uint8", shape=(-1, 3, 8, 8)),))
    refused(PreprocessError, "do not fit the input's type uint8", eight, tmp_path / "other", preprocess="cifar10")
    assert not (tmp_path / "other").exists()


# ── labels ──


def test_labels_go_to_the_output_of_classes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nbird, small\nfrog\n")
    export_triton(network(tmp_path), tmp_path / "repo", labels=tmp_path / "names.txt", preprocess="cifar10")
    for name in ("net", "net_ensemble"):
        assert [p.label_filename for p in config_of(tmp_path / "repo", name).output] == ["labels.txt"]
        assert (tmp_path / "repo" / name / "labels.txt").read_text() == "cat\ndog\nbird, small\nfrog\n"
    assert not (tmp_path / "repo/net_preprocess/labels.txt").exists()


def test_labels_of_one_name_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('["cat", "crane", "crane", "frog"]')
    export_triton(network(tmp_path), tmp_path / "repo", labels=tmp_path / "names.json")
    assert (tmp_path / "repo/net/labels.txt").read_text() == "cat\ncrane\ncrane\nfrog\n"


def test_a_label_is_one_line_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('["cat", "a\\nb", "\\u001b[2J", "\\udce4"]')
    export_triton(network(tmp_path), tmp_path / "repo", labels=tmp_path / "names.json")
    assert (tmp_path / "repo/net/labels.txt").read_text() == "cat\na b\n\\x1b[2J\n\\udce4\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a\nb\n", "2 labels match no output: y"), ("a\n\nc\nd\n", "class 1 has no name"), ("", "holds no class names")],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    refused(DataError, problem, network(tmp_path), tmp_path / "repo", labels=tmp_path / "names.txt")
    assert not (tmp_path / "repo").exists()


# ── versions, and nothing half-written ──


def exported(path: Path, repo: Path, version: int = 1, **how: Any) -> TritonExport:
    return export_triton(path, repo, options=TritonOptions(name="net", version=version, **how), preprocess="cifar10")


def test_a_new_version_keeps_the_old_one(tmp_path: Path) -> None:
    path = network(tmp_path)
    exported(path, tmp_path / "repo")
    one = tree(tmp_path / "repo")
    path = network(tmp_path, body=QDQ)
    made = exported(path, tmp_path / "repo", 2)
    two = tree(tmp_path / "repo")
    assert {name: two[name] for name in one} == {**one}
    assert two["net/2/model.onnx"] == path.read_bytes()
    assert set(two) - set(one) == {"net/2/model.onnx", "net_preprocess/2/model.onnx", "net_ensemble/2/.keep"}
    assert any("config.pbtxt is unchanged, because version 2 is compatible with it" in note for note in made.notes)
    assert (tmp_path / "repo/net/config.pbtxt") not in made.files
    forced = exported(path, tmp_path / "repo", 2, force=True)
    assert tree(tmp_path / "repo")["net/config.pbtxt"] != one["net/config.pbtxt"]
    assert (tmp_path / "repo/net/config.pbtxt") in forced.files
    assert tree(tmp_path / "repo")["net/1/model.onnx"] == one["net/1/model.onnx"]


def test_edited_settings_survive_a_new_version(tmp_path: Path) -> None:
    exported(network(tmp_path), tmp_path / "repo")
    config = tmp_path / "repo/net/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 7"))
    exported(network(tmp_path), tmp_path / "repo", 2)
    assert config_of(tmp_path / "repo", "net").instance_group[0].count == 7


@pytest.mark.parametrize("force", [False, True])
def test_a_version_that_does_not_fit_is_refused(tmp_path: Path, force: bool) -> None:
    exported(network(tmp_path), tmp_path / "repo")
    before = tree(tmp_path / "repo")
    options = TritonOptions(name="net", version=2, max_batch=4, force=force)
    refused(
        StaleError,
        "version 2 of net.* is incompatible with version 1: different max_batch",
        network(tmp_path),
        tmp_path / "repo",
        options=options,
        preprocess="cifar10",
    )
    assert tree(tmp_path / "repo") == before


def test_a_version_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    exported(network(tmp_path), tmp_path / "repo")
    before = tree(tmp_path / "repo")
    path = network(tmp_path, body=QDQ)
    with pytest.raises(OutputError, match="already exists") as caught:
        exported(path, tmp_path / "repo")
    assert "--version 2" in caught.value.remedy
    assert tree(tmp_path / "repo") == before
    exported(path, tmp_path / "repo", force=True, max_batch=3)
    assert config_of(tmp_path / "repo", "net").max_batch_size == 3
    assert tree(tmp_path / "repo")["net/1/model.onnx"] == path.read_bytes()


def test_an_ensemble_does_not_stay_behind(tmp_path: Path) -> None:
    exported(network(tmp_path), tmp_path / "repo")
    options = TritonOptions(name="net", force=True)
    refused(UsageError, "would remain", network(tmp_path), tmp_path / "repo", options=options, preprocess="none")


def test_other_models_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "repo/theirs/3").mkdir(parents=True)
    (tmp_path / "repo/theirs/3/model.pt").write_bytes(b"weights")
    exported(network(tmp_path), tmp_path / "repo")
    assert tree(tmp_path / "repo")["theirs/3/model.pt"] == b"weights"


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    for repo in ("a", "b"):
        exported(network(tmp_path), tmp_path / repo)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the n-th rename fail."""
    rename = os.replace

    def fail_at(count: int, error: BaseException) -> None:
        calls = iter(range(1 << 20))

        def replace(source: Any, target: Any) -> None:
            if next(calls) == count:
                raise error
            rename(source, target)

        monkeypatch.setattr("os.replace", replace)

    yield fail_at
    monkeypatch.undo()


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=["full", "interrupted"])
def test_all_models_are_written_or_none(tmp_path: Path, failing: Any, count: int, error: BaseException) -> None:
    exported(network(tmp_path), tmp_path / "repo")
    before = tree(tmp_path / "repo")
    failing(count, error)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        exported(network(tmp_path, body=QDQ), tmp_path / "repo", force=True)
    assert tree(tmp_path / "repo") == before
    assert {p.name for p in (tmp_path / "repo").iterdir()} == {"net", "net_preprocess", "net_ensemble"}


@pytest.mark.parametrize("count", range(3))
def test_a_repository_that_was_not_there_is_not_there_after_a_failure(tmp_path: Path, failing: Any, count: int) -> None:
    failing(count, OSError(28, "No space left"))
    with pytest.raises(OutputError, match="No space left"):
        exported(network(tmp_path), tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_a_file_in_place_of_the_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(UsageError, "file is not a folder", network(tmp_path), tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write"):
        export_triton(network(tmp_path), tmp_path / "file" / "repo")


# ── options and text ──


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"name": "a/b"}, "is not a valid model name"),
        ({"name": ".."}, "is not a valid model name"),
        ({"name": ""}, "is not a valid model name"),
        ({"version": 0}, "version is 0"),
        ({"max_batch": -1}, "max_batch is -1"),
        ({"accelerator": "openvino"}, "unknown accelerator"),
        ({"precision": "int8"}, "has no effect without accelerator="),
        ({"precision": "int4", "accelerator": "tensorrt"}, "unknown precision"),
    ],
)
def test_options_are_checked(how: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TritonOptions(**how)


def test_more_than_the_engine_takes_is_refused(tmp_path: Path) -> None:
    refused(
        UsageError,
        "exceeds the engine's largest batch of 32",
        engine(tmp_path),
        tmp_path / "r",
        options=TritonOptions(max_batch=33),
    )


def test_without_tritonclient_it_says_that_nothing_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantkit.export.triton.has_triton", lambda: False)
    made = exported(network(tmp_path), tmp_path / "repo")
    assert not made.checked
    assert made.notes == (f"the configurations were not read back: {install_command('triton')}",)


@given(
    name=st.text(st.characters(codec="utf-8")),
    keys=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), max_size=3),
    dims=st.lists(st.integers(-1, 1 << 40), max_size=3),
    graphs=st.booleans(),
)
def test_any_text_is_read_back_as_it_was(name: str, keys: dict[str, str], dims: list[int], graphs: bool) -> None:
    text = pbtxt(
        (
            Remark(name),
            ("name", name),
            ("input", [(("name", name), ("data_type", Word("TYPE_INT8")), ("dims", dims))]),
            ("optimization", (("cuda", (("graphs", graphs),)),)),
            ("metric_tags", keys),
        )
    )
    assert not CONTROL.search(text.replace("\n", ""))
    found = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (found.name, found.input[0].name, list(found.input[0].dims)) == (name, name, dims)
    assert (dict(found.metric_tags), found.optimization.cuda.graphs) == (keys, graphs)
