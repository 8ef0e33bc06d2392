"""Engines of every kind, as far as that goes without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checked
import host_cuda
import numpy as np
import onnx
import pytest
from checked import HAS_CALIBRATORS, NUMBER
from onnx import numpy_helper

from quantkit.backends.engine_record import EngineLayer
from quantkit.backends.tensorrt import inspection as inspecting
from quantkit.backends.tensorrt.build import EngineBuild, build_engine, kernels_loaded
from quantkit.backends.tensorrt.engine_layers import LayerContext, engine_layers
from quantkit.backends.tensorrt.options import BuildOptions, Precision, Verbosity
from quantkit.backends.tensorrt.shapes import parse_shapes
from quantkit.errors import BackendError, ModelError, TableError, UsageError
from quantkit.graph import load_model
from quantkit.table import Algorithm, CalibrationTable, Header

pytestmark = pytest.mark.usefixtures("folder")
with_calibrators = pytest.mark.skipif(not HAS_CALIBRATORS, reason="TensorRT 11 has no calibrators")
from_10 = pytest.mark.skipif(checked.MAJOR < 10, reason="TensorRT 8 has no strongly typed networks")

RANGE = "x=1:4:8"
ALL = {
    "workspace": 1 << 20, "level": 1, "version_compatible": True, "hardware_compatible": True, "refit": True,
    "verbosity": Verbosity.NAMES,
}  # fmt: skip


def build(network: str, precision: str, table: CalibrationTable | None = None, **how: Any) -> EngineBuild:
    model = load_model(f"{network}.onnx")
    arguments = {name: how.pop(name) for name in ("timing_cache", "phase") if isinstance(how.get(name), bytes)}
    if "phase" in how:
        arguments["phase"] = how.pop("phase")
    options = BuildOptions(precision=Precision.named(precision), **how)
    return build_engine(model, options, parse_shapes([RANGE], model.inputs), table=table, **arguments)


def table_for(number: int | None = NUMBER, algorithm: Algorithm = Algorithm.ENTROPY_2) -> CalibrationTable:
    version = None if algorithm is Algorithm.LEGACY else number
    return CalibrationTable(Header(algorithm, version), {"x": 0.1, "c": 0.2, "a": 0.3, "y": 0.25})


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_float(world: checked.World, precision: str) -> None:
    made = build("float", precision)
    assert made.plan.startswith(b'{"magic": "plan"')
    assert [layer.nodes for layer in made.layers] == [("/conv",), ("b",), ("b_reshape",), ("/add",), ("y",)]
    assert made.layers[0].precision == "FP32"
    assert made.memory == 4096
    assert [(b.name, b.dtype, b.is_input) for b in made.bound] == [("x", "float32", True), ("y", "float32", False)]
    assert made.bound[0].shape[0] == -1
    assert made.warnings == ("weights are denormal",)
    assert made.timing_cache == b"+measured"
    assert world.build.flags == ({"TF32"} if precision == "tf32" else set())
    assert world.build.strong == (checked.MAJOR >= 11)


def test_phases_are_told(world: checked.World) -> None:
    told: list[str] = []
    build("float", "fp32", phase=told.append)
    assert told[0] == "starting TensorRT"
    assert "building" in told
    if checked.MAJOR >= 10:
        assert "Building Engine 1/3" in told


@with_calibrators
def test_fp16(world: checked.World) -> None:
    build("float", "fp16")
    assert world.build.flags == {"FP16", "TF32"}


@with_calibrators
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_int8_with_a_table(world: checked.World, algorithm: Algorithm) -> None:
    made = build("float", "int8", table_for(algorithm=algorithm))
    assert world.build.flags == {"INT8", "FP16", "TF32"}
    assert world.build.batches == []
    assert world.build.table_read is not None
    assert made.covered is not None
    assert made.covered.completed == ("b", "b_reshaped")
    assert made.covered.missing == ()
    assert {layer.precision for layer in made.layers} == {"INT8"}


@with_calibrators
def test_a_table_of_another_version(world: checked.World) -> None:
    with pytest.raises(TableError, match="would ignore it"):
        build("float", "int8", table_for(8501))
    assert world.builds == []
    made = build("float", "int8", table_for(8501), retarget=True)
    assert world.build.batches == []
    assert "--retarget" in made.notes[0]


@with_calibrators
def test_nodes_kept_out_of_int8(world: checked.World) -> None:
    made = build("float", "int8", table_for(), exclude=("/conv", "Relu"), fp16=False)
    assert world.build.precisions == {"/conv": "FLOAT", "y": "FLOAT"}
    assert "OBEY_PRECISION_CONSTRAINTS" in world.build.flags
    assert made.kept == ("/conv", "y")


def test_int8_by_qdq(world: checked.World) -> None:
    made = build("qdq", "int8")
    assert world.build.flags == ({"INT8", "FP16", "TF32"} if HAS_CALIBRATORS else {"TF32"})
    assert world.build.strong == (checked.MAJOR >= 11)
    assert made.layers[-1].precision == "INT8"


@pytest.mark.parametrize("network", ["float", "qdq"])
def test_every_option(world: checked.World, network: str) -> None:
    precision = "int8" if network == "qdq" else "fp32"
    build(network, precision, timing_cache=b"", **ALL)
    assert {"REFIT", "VERSION_COMPATIBLE"} <= world.build.flags
    assert (world.build.level, world.build.workspace) == (1, 1 << 20)


def test_strong_types(world: checked.World) -> None:
    if checked.MAJOR < 10:
        with pytest.raises(BackendError, match="no strongly typed networks"):
            build("qdq", "int8", strongly_typed=True)
        return
    build("qdq", "int8", strongly_typed=True)
    assert world.build.strong
    assert world.build.flags == {"TF32"}


@pytest.mark.parametrize("precision", ["int8", "best"])
def test_a_table_goes_into_qdq_where_types_are_strong(world: checked.World, precision: str) -> None:
    if checked.MAJOR < 10:
        with pytest.raises(BackendError, match="no strongly typed networks"):
            build("float", precision, table_for(), strongly_typed=True)
        return
    made = build("float", precision, table_for(), strongly_typed=HAS_CALIBRATORS)
    assert world.build.strong
    assert world.build.flags == {"TF32"}
    assert (world.build.table_read, world.build.batches) == (None, [])
    kinds = list(world.build.layers.values())
    assert (kinds.count("QUANTIZE"), kinds.count("DEQUANTIZE")) == (2, 2)
    assert world.build.layers["x_Quantize"] == "QUANTIZE"
    assert {"/conv", "/add", "y"} <= world.build.layers.keys()
    assert made.converted
    assert made.covered is not None
    assert (made.covered.share, made.covered.completed, made.covered.missing) == (1.0, (), ())
    why = "builds with strong types" if HAS_CALIBRATORS else "has no calibrators"
    assert f"{why}: 1 activations got Q/DQ pairs from the table" in made.notes[0]


@from_10
@pytest.mark.parametrize("number", [NUMBER, 8501])
def test_scales_in_qdq_are_of_no_version(world: checked.World, number: int | None) -> None:
    assert build("float", "int8", table_for(number), strongly_typed=HAS_CALIBRATORS).converted
    assert len(world.builds) == 1


@from_10
def test_a_table_of_another_network_is_refused_before_qdq(world: checked.World) -> None:
    table = CalibrationTable(Header(Algorithm.ENTROPY_2, NUMBER), {"x": 0.1, "other": 0.2})
    with pytest.raises(TableError, match="the table covers 25% of the network's 4 float tensors; missing: c, a, y"):
        build("float", "int8", table, strongly_typed=HAS_CALIBRATORS)
    assert world.builds == []


@from_10
def test_nodes_kept_out_of_qdq(world: checked.World) -> None:
    made = build("float", "int8", table_for(), strongly_typed=HAS_CALIBRATORS, exclude=("Relu",))
    assert (made.kept, made.converted, world.build.precisions) == (("y",), True, {})
    with pytest.raises(ModelError, match="no operator of this network can be quantized"):
        build("float", "int8", table_for(), strongly_typed=HAS_CALIBRATORS, exclude=("/conv",))
    with pytest.raises(UsageError, match="exclude='/none': no node of the network"):
        build("float", "int8", table_for(), strongly_typed=HAS_CALIBRATORS, exclude=("/none",))
    assert len(world.builds) == 1


@from_10
def test_what_stays_float_is_stated(world: checked.World) -> None:
    table = table_for()
    table = CalibrationTable(table.header, {**table.scales, "x": 0.0})
    with pytest.raises(ModelError, match="no operator of this network can be quantized"):
        build("float", "int8", table, strongly_typed=HAS_CALIBRATORS)
    table = CalibrationTable(table.header, {**table.scales, "x": 0.1, "r": 0.0, "y": 0.1})
    made = build("two", "int8", table, strongly_typed=HAS_CALIBRATORS)
    assert made.notes[1:] == ("/second stays float: zero throughout the calibration data: r",)
    assert list(world.build.layers.values()).count("QUANTIZE") == 2


@from_10
@pytest.mark.parametrize("precision", ["fp16", "best"])
def test_strong_types_of_a_network_with_float16_weights(world: checked.World, precision: str) -> None:
    proto = onnx.load("float.onnx")
    for weight in proto.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    onnx.save(proto, "half.onnx")
    build("half", precision, strongly_typed=HAS_CALIBRATORS)
    assert world.build.strong
    assert world.build.flags == {"TF32"}


@with_calibrators
@pytest.mark.parametrize("fails", [(), ("no scaling factors",)])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_table_that_tensorrt_does_not_take(
    monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm, fails: tuple[str, ...]
) -> None:
    """It asks for data then; whether a plan came out of that or not, the table is what is wrong."""
    world = checked.reset(fails=fails)
    honest = checked.calibrated

    def asks(calibrator: Any, *rest: Any) -> bool:
        assert calibrator.get_batch(["x"]) is None
        return honest(calibrator, *rest)

    monkeypatch.setattr(checked, "calibrated", asks)
    with pytest.raises(TableError, match="TensorRT did not accept the table: it asked for 1 batches") as caught:
        build("float", "int8", table_for(algorithm=algorithm))
    assert "--retarget" in caught.value.remedy
    assert len(world.builds) == 1


def test_no_room_for_a_context_leaves_layers_untold() -> None:
    checked.reset(contexts=0)
    if checked.MAJOR < 10:
        pytest.skip("the stand-in gives every engine one context")
    made = build("float", "fp32")
    assert made.plan.startswith(b'{"magic": "plan"')
    assert (made.layers, made.memory) == ((), 4096)
    assert made.notes == ("the GPU has no memory for a context, so the layers are unknown",)


@pytest.mark.parametrize("text", ["", "{", "Layer(Scale): x"])
def test_an_account_of_layers_that_is_no_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(checked.EngineInspector, "get_engine_information", lambda *_: text)
    made = build("float", "fp32")
    assert (made.layers, made.memory, made.timing_cache) == ((), 4096, b"+measured")
    assert made.notes[0].startswith("TensorRT's description of the layers cannot be read: ")


@from_10
@pytest.mark.parametrize("precision", ["fp16", "best"])
def test_strong_types_of_a_float_network(world: checked.World, precision: str) -> None:
    with pytest.raises(BackendError, match="the network alone defines the precisions") as caught:
        build("float", precision, strongly_typed=HAS_CALIBRATORS)
    assert f"{precision} would have no effect" in caught.value.problem
    assert ("--strongly-typed" if HAS_CALIBRATORS else "TensorRT 11") in caught.value.problem
    assert caught.value.remedy
    assert world.builds == []


@pytest.mark.parametrize("strongly_typed", [False, True])
def test_int8_without_scales(world: checked.World, strongly_typed: bool) -> None:
    with pytest.raises(UsageError, match="INT8 needs scales"):
        build("float", "int8", strongly_typed=strongly_typed)
    assert world.builds == []


@pytest.mark.parametrize(
    ("precision", "table", "how", "problem"),
    [
        ("int8", True, {}, "a table cannot be used with it"),
        ("int8", False, {"exclude": ("/conv",)}, "defines itself what is INT8"),
        ("fp16", False, {}, "the precision is fp16"),
        ("fp32", False, {}, "the precision is fp32"),
    ],
)
def test_refused_of_a_qdq_network(
    world: checked.World, precision: str, table: bool, how: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        build("qdq", precision, table_for() if table else None, **how)
    assert world.builds == []


def test_kernels_stay_loaded(world: checked.World) -> None:
    with kernels_loaded():
        assert build("float", "fp32").plan
        with kernels_loaded():
            pass
        assert build("float", "tf32").plan
    assert len(world.builds) == 2


def test_builds_share_measured_times_while_kernels_are_loaded(world: checked.World) -> None:
    with kernels_loaded():
        first = build("float", "fp32", timing_cache=b"file")
        with kernels_loaded():
            made = build("float", "tf32", timing_cache=first.timing_cache)
        build("float", "fp32", timing_cache=b"another")
    build("float", "fp32")
    cached = [found.timing_cache for found in world.builds]
    assert cached == [b"file", b"file+measured", b"file+measured+measuredanother", b""]
    assert made.timing_cache == b"file+measured+measured"


@pytest.mark.parametrize("force", [False, True])
def test_shared_times_do_not_replace_a_file_that_is_refused(force: bool) -> None:
    world = checked.reset(takes_timing_cache=False)
    with kernels_loaded():
        build("float", "fp32")
        made = build("float", "tf32", timing_cache=b"of another GPU", force=force)
    assert world.build.timing_cache == b"+measured"
    assert "timing cache" in made.notes[0]
    assert (made.timing_cache is None) is not force


def test_kernels_of_a_gpu_that_is_not_there() -> None:
    host_cuda.reset(devices=2)
    with kernels_loaded(1):
        pass
    for number in (2, -1):
        with pytest.raises(BackendError, match=f"there is no GPU {number}") as caught, kernels_loaded(number):
            pytest.fail("it is not there")
        assert "0 … 1" in caught.value.remedy


def test_kernels_of_a_tensorrt_that_does_not_start() -> None:
    checked.reset(starts=False)
    with pytest.raises(BackendError, match="CUDA initialization failure"), kernels_loaded():
        pytest.fail("it does not start")


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_strong_types_of_a_float_network_that_stays_float(world: checked.World, precision: str) -> None:
    if checked.MAJOR < 10:
        with pytest.raises(BackendError, match="no strongly typed networks"):
            build("float", precision, strongly_typed=True)
        return
    build("float", precision, strongly_typed=True)
    assert world.build.strong
    assert world.build.flags == ({"TF32"} if precision == "tf32" else set())


@with_calibrators
@pytest.mark.parametrize(("fp16", "flags"), [(True, {"FP16", "TF32"}), (False, {"TF32"})])
def test_without_scales_nothing_is_int8(world: checked.World, fp16: bool, flags: set[str]) -> None:
    made = build("float", "best", fp16=fp16)
    assert world.build.flags == flags
    assert {layer.precision for layer in made.layers} == {"FP32"}
    with pytest.raises(UsageError, match="INT8 needs scales"):
        build("float", "int8", fp16=fp16)
    assert len(world.builds) == 1


@with_calibrators
def test_best_with_a_table(world: checked.World) -> None:
    build("float", "best", table_for())
    assert world.build.flags == {"INT8", "FP16", "TF32"}
    assert world.build.table_read is not None


@pytest.mark.parametrize("there", [None, b"", b"measured"])
def test_timing_cache(world: checked.World, there: bytes | None) -> None:
    model = load_model("float.onnx")
    made = build_engine(
        model, BuildOptions(precision=Precision.FP32), parse_shapes([RANGE], model.inputs), timing_cache=there
    )
    assert world.build.timing_cache == (there or b"")
    assert made.timing_cache == (there or b"") + b"+measured"


def test_a_timing_cache_that_does_not_fit() -> None:
    world = checked.reset(takes_timing_cache=False)
    made = build("float", "fp32", timing_cache=b"of another GPU")
    assert world.build.timing_cache == b""
    assert "timing cache" in made.notes[0]


@pytest.mark.parametrize(
    ("there", "takes", "anew"),
    [(None, True, True), (b"", True, True), (b"times", True, False), (b"times", False, True)],
)
def test_times_that_were_kept_are_known_as_such(
    monkeypatch: pytest.MonkeyPatch, there: bytes | None, takes: bool, anew: bool
) -> None:
    checked.reset(takes_timing_cache=takes)
    contexts: list[LayerContext] = []

    def seen(document: Any, context: LayerContext) -> tuple[EngineLayer, ...]:
        contexts.append(context)
        return engine_layers(document, context)

    monkeypatch.setattr(inspecting, "engine_layers", seen)
    model = load_model("float.onnx")
    build_engine(model, BuildOptions(precision=Precision.FP32), parse_shapes([RANGE], model.inputs), timing_cache=there)
    assert [context.measured_anew for context in contexts] == [anew]


def test_no_timing_cache(world: checked.World) -> None:
    made = build("float", "fp32", timing_cache=False)
    assert made.timing_cache is None
    assert world.build.timing_cache is None
    assert "DISABLE_TIMING_CACHE" in world.build.flags


@pytest.mark.parametrize("unparsable", [(), ("Conv",)])
def test_what_the_parser_cannot_parse(unparsable: tuple[str, ...]) -> None:
    world = checked.reset(unparsable=unparsable)
    with pytest.raises(ModelError) as caught:
        build("odd", "fp32")
    assert "node '/odd' (Mystery)" in caught.value.problem
    if unparsable:
        assert "node '/conv' (Conv): Assertion failed: nobody knows how" in caught.value.problem
    assert world.builds == []


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (("Could not find any implementation for node /conv.",), BackendError, "no kernel"),
        (("something else",), ModelError, "something else"),
        (("[optimizer.cpp::convertMyelinWeightsToFp32::1] Assertion",), ModelError, "--weights float"),
        ((), None, ""),
    ],
)
def test_no_plan(said: tuple[str, ...], error: type[Exception] | None, text: str) -> None:
    checked.reset(fails=said)
    if error is None:
        build("float", "fp32")
        return
    with pytest.raises(error, match=text):
        build("float", "fp32")


def test_tensorrt_that_does_not_start() -> None:
    checked.reset(starts=False)
    with pytest.raises(BackendError, match="CUDA initialization failure"):
        build("float", "fp32")


def test_no_gpu() -> None:
    host_cuda.reset(started=False)
    with pytest.raises(BackendError, match="no CUDA-capable device"):
        build("float", "fp32")


def test_the_folder_is_left_alone(folder: Path) -> None:
    before = sorted(folder.iterdir())
    build("float", "fp32")
    assert sorted(folder.iterdir()) == before
