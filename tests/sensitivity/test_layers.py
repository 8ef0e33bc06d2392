"""`quantkit layers`: what is broken comes first, on small and on trained networks; its files, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import numpy_helper

import quantkit
from quantkit import DataOptions, QuantizeOptions
from quantkit.calibration.backend_choice import refuse_without_calibrators
from quantkit.cli import layers as layering
from quantkit.data import open_data
from quantkit.errors import BackendError, DataError, ModelError, OutputError, QuantkitError, StaleError, UsageError
from quantkit.graph import Model, load_model
from quantkit.graph.node_selection import select_nodes
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.rules.squared_error import mean_square, squared_error
from quantkit.sensitivity.exclusion_file import expand_name_files, format_exclusions, write_exclusions
from quantkit.sensitivity.layers import layers
from quantkit.sensitivity.options import LayersOptions
from quantkit.sensitivity.result import MISFIT, LayerError, Sensitivity
from quantkit.view import CONTROL
from tests.support.networks import Command, network
from tests.support.qdq import write_gated_block

STATS = "net/model.stats.safetensors"
FEW = LayersOptions(data=DataOptions(limit=8))


def edited(model: Model, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Model:
    """A model with another initializer."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(values), values.dtype), name))
    return replace(model, proto=proto, sha256="edited")


def times(factor: float, channel: int | None = None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(values: NDArray[Any]) -> NDArray[Any]:
        if channel is None:
            return values * factor
        values[channel] *= factor
        return values

    return change


def readers(model: Model, scale: str) -> set[str]:
    """The nodes that read what is quantized with a scale."""
    made = {n.output[0] for n in model.proto.graph.node if n.op_type == "DequantizeLinear" and n.input[1] == scale}
    return {n.name for n in model.proto.graph.node if made & set(n.input)}


def scales_of(model: Model) -> tuple[list[str], list[str]]:
    """The scales of activations and of weights."""
    graph = model.proto.graph
    weights = {t.name for t in graph.initializer}
    quantizers = [n for n in graph.node if n.op_type == "QuantizeLinear"]
    activations = [n.input[1] for n in quantizers if n.input[0] not in weights]
    stored = [n.input[1] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights]
    return activations, stored


# Broken on purpose ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repairs", [(), REPAIR_NAMES])
@pytest.mark.slow
def test_every_broken_scale_is_at_the_top(calibrated: Path, repairs: tuple[str, ...]) -> None:
    """Of the bundled network, with and without all repairs: of activations × 8, of weights' channels × 100."""
    made = quantkit.quantize(
        "net/model.onnx",
        "q.onnx",
        statistics="net/model.stats.safetensors",
        data="imgs" if repairs else None,
        options=QuantizeOptions(repairs=repairs),
    )
    assert tuple(made.repairs) == repairs
    model = load_model("q.onnx")
    activations, weights = scales_of(model)
    for scale, change in [(s, times(8)) for s in activations[2::7]] + [(s, times(100, 1)) for s in weights[1::9]]:
        found = layers("net/model.onnx", against=edited(model, scale, change), data="imgs", options=FEW)
        broken = readers(model, scale)
        assert set(found.ranked[: len(broken)]) == broken, scale
        assert found.layers[0].misfit_db > MISFIT


@pytest.mark.slow
def test_sound_scales_fit(calibrated: Path) -> None:
    for rule in ("mse", "minmax"):
        found = layers(
            "net/model.onnx",
            statistics="net/model.stats.safetensors",
            data="imgs",
            options=replace(FEW, rule=rule),
        )
        assert not any(layer.misfit for layer in found.layers)
        assert [x.alone_db for x in found.layers] == sorted(x.alone_db for x in found.layers)


def test_a_channel_that_is_wider_than_the_others_is_found_without_a_misfit(calibrated: Path) -> None:
    """A channel × 100 and the weights that read it / 100: the float network keeps its function, no scale fits."""
    model = load_model("net/model.onnx")
    first, second = (n for n in model.proto.graph.node if n.name in ("block1/a/conv", "block1/b/conv"))
    norm = next(n for n in model.proto.graph.node if n.input[0] == first.output[0])
    wide = model
    for name in norm.input[1:3]:
        wide = edited(wide, name, times(100, 3))

    def narrow(values: NDArray[Any]) -> NDArray[Any]:
        values[:, 3] /= 100
        return values

    wide = edited(wide, second.input[1], narrow)
    onnx.save(wide.proto, "wide.onnx")
    Path("preprocess.toml").write_bytes(Path("net/preprocess.toml").read_bytes())
    made = quantkit.calibrate("wide.onnx", "imgs", rules="minmax")
    found = layers("wide.onnx", statistics=made.statistics, data="imgs", options=replace(FEW, rule="minmax"))
    assert found.ranked[0] == "block1/b/conv"


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "vit"])
def test_broken_layers_of_trained_networks_are_at_the_top(shared: Path, tmp_path: Path, name: str) -> None:
    """A scale × 8 and a weight's channel × 100 at once, after equalization, smoothing and bias correction."""
    path, data = shared / "models" / f"{name}.onnx", shared / "golden" / "networks" / "calibration_512.npz"
    few = DataOptions(limit=16)
    options = QuantizeOptions(repairs=("equalize", "smooth", "bias"), data=few)
    quantkit.quantize(path, tmp_path / "q.onnx", data=data, preprocess="cifar10", options=options)
    model = load_model(tmp_path / "q.onnx")
    activations, weights = scales_of(model)
    scale, weight = activations[len(activations) // 2], weights[len(weights) // 4]
    broken = edited(edited(model, scale, times(8)), weight, times(100, 0))
    less = LayersOptions(data=DataOptions(limit=4))
    found = layers(path, against=broken, data=data, preprocess="cifar10", options=less)
    both = readers(model, scale) | readers(model, weight)
    assert set(found.ranked[: len(both)]) == both
    assert found.ranked[0] in readers(model, weight)


# Figures ----------------------------------------------------------------------------------------------------------


def test_statistics_alone_estimate_what_data_measures(calibrated: Path) -> None:
    stats = quantkit.read_statistics("net/model.stats.safetensors")
    alone = layers("net/model.onnx", statistics=stats)
    assert alone.layers == ()
    assert math.isnan(alone.all_db)
    measured = layers("net/model.onnx", statistics=stats, data="imgs")
    exact = {(t.name, t.node): t for t in measured.tensors}
    assert {(t.name, t.node) for t in alone.tensors} == set(exact)
    for tensor in alone.tensors:
        other = exact[tensor.name, tensor.node]
        assert tensor.estimated is not tensor.weight
        assert not other.estimated
        assert tensor.sqnr_db == pytest.approx(other.sqnr_db, abs=0.5), tensor.name
        assert tensor.levels == pytest.approx(other.levels, rel=0.12)
        if tensor.weight:
            assert tensor.clipped == other.clipped
        else:
            h = stats.histograms[tensor.name]
            # a histogram does not say where in its bin a value lies, nor a float32 threshold on which side of itself
            bin_ = min(int(tensor.scale * 127 / h.width), len(h.counts) - 1)
            assert tensor.clipped == pytest.approx(other.clipped, abs=(h.counts[bin_] + 1) / h.elements)
            ratio = mean_square(h) / squared_error(h, tensor.scale * 127)
            assert tensor.sqnr_db == pytest.approx(10 * math.log10(ratio))


def test_weights_are_measured_exactly(calibrated: Path) -> None:
    found = layers("net/model.onnx", statistics="net/model.stats.safetensors")
    error = next(t for t in found.tensors if t.node == "classifier" and t.weight)
    tensor = next(t for t in load_model("net/model.onnx").proto.graph.initializer if t.name == error.name)
    values = numpy_helper.to_array(tensor)
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)  # [outputs, inputs], transB
    assert error.scale == pytest.approx(float(scale.max()))
    codes = np.rint(values / scale)
    rest = (values - codes * scale).astype(np.float64)
    assert error.sqnr_db == pytest.approx(10 * np.log10(np.square(values, dtype=np.float64).sum() / (rest**2).sum()))
    assert (error.levels, error.clipped, error.misfit_db) == (len(np.unique(codes)), 0.0, 0.0)


@pytest.mark.slow
def test_a_file_of_onnxruntimes_own_tool(calibrated: Path) -> None:
    """uint8 with zero points, pairs around every operator, biases as int32."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            inputs = load_model("net/model.onnx").inputs
            feed, _ = open_data("imgs", inputs, quantkit.load_preprocess("net/preprocess.toml"), DataOptions())
            self._left = [dict(portion.batch) for portion in feed.portions()]

        def get_next(self) -> Any:
            return self._left.pop() if self._left else None

    quantize_static(
        "net/model.onnx", "ort.onnx", Reader(), QuantFormat.QDQ, activation_type=QuantType.QUInt8, per_channel=True
    )
    model = load_model("ort.onnx")
    found = layers("net/model.onnx", against=model, data="imgs", options=FEW)
    assert {"stem/conv", "stem/bn", "classifier"} <= set(found.ranked)
    assert 10 < found.all_db < 60
    assert not found.notes[:-1]
    scale = next(s for s in scales_of(model)[0] if "block3/depthwise/conv" in readers(model, s))
    broken = layers("net/model.onnx", against=edited(model, scale, times(8)), data="imgs", options=FEW)
    assert broken.ranked[0] in readers(model, scale)


# Exclusions -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_as_many_layers_as_lift_the_outputs(calibrated: Path) -> None:
    given: dict[str, Any] = {"statistics": "net/model.stats.safetensors", "data": "imgs"}
    base = layers("net/model.onnx", **given, options=FEW)
    found = layers("net/model.onnx", **given, options=replace(FEW, keep_db=base.all_db + 2))
    assert 0 < len(found.kept) < len(found.ranked)
    assert found.kept == found.ranked[: len(found.kept)]
    assert found.kept_db >= base.all_db + 2
    excluded = layers("net/model.onnx", **given, options=replace(FEW, exclude=found.kept))
    assert excluded.all_db >= found.kept_db - 0.5  # pairs between excluded layers are left out too


def test_the_file_is_what_quantize_and_build_take(
    calibrated: Path, quantkit_command: Command, quantkit_json: Callable[..., Any]
) -> None:
    found = layers(
        "net/model.onnx",
        statistics="net/model.stats.safetensors",
        data="imgs",
        options=replace(FEW, keep=2),
    )
    path = write_exclusions(found, "worst.txt")
    text = path.read_text()
    assert text == format_exclusions(found)
    assert "# nodes that stay float: the 2 worst of" in text
    names = expand_name_files((f"@{path}",))
    assert names == found.kept
    assert select_nodes(names, load_model("net/model.onnx"), "--exclude") == set(found.kept)
    told = quantkit_json("quantize", "net/model.onnx", "--exclude", "@worst.txt")
    assert [node for node, why in told["left"].items() if why == "excluded"] == sorted(found.kept, key=told["left"].get)
    with pytest.raises(StaleError, match="already exists"):
        write_exclusions(found, "worst.txt")


@pytest.mark.parametrize(("version", "gate"), [("8.6.1", {"h", "k"}), ("10.3.0", set())])
def test_layers_are_those_of_the_tensorrt_that_the_network_is_for(tmp_path: Path, version: str, gate: set[str]) -> None:
    """As those of `quantize`: TensorRT 8 runs a gate behind a depthwise convolution in INT8."""
    network, table, samples = write_gated_block(tmp_path, "TRT-8601-EntropyCalibration2")
    found = layers(network, table=table, data=samples, options=LayersOptions(tensorrt_version=version))
    made = quantkit.quantize(network, table=table, tensorrt_version=version)
    assert {layer.node for layer in found.layers if layer.operator == "Conv"} == {"a", "b", "y"} | gate
    assert made.left.keys() == {"h", "k"} - gate


def test_a_name_that_a_line_cannot_hold() -> None:
    layer = LayerError("conv #1", "Conv", 20.0, 30.0, 10.0, 1.0, 20.0, 9)
    found = Sensitivity("m.onnx", "s", 20.0, (layer,), (), 1, (), {}, 0.0, ("conv #1",), 30.0)
    with pytest.raises(OutputError, match="'conv #1' cannot be written"):
        format_exclusions(found)


def test_remarks_in_the_file_begin_no_lines(tmp_path: Path) -> None:
    """The names of model, statistics and operators are in comments, whatever is in them."""
    evil = "x\nconv2\u2028conv3\x85\x1b[2J\udce4"
    layer = LayerError("conv", evil, 20.0, 30.0, 10.0, 1.0, 20.0, 9)
    found = Sensitivity(f"{evil}.onnx", evil, 20.0, (layer,), (), 1, (), {}, 0.0, ("conv",), 30.0)
    path = write_exclusions(found, tmp_path / "worst.txt")
    assert expand_name_files((f"@{path}",)) == ("conv",)
    assert not CONTROL.search(path.read_text().replace("\n", ""))


# The command ------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    """`quantkit layers …`; errors are raised."""
    return CliRunner().invoke(layering.layers, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_command_without_data(calibrated: Path) -> None:
    done = command("net/model.onnx", "--top", 2)
    assert done.exit_code == 0
    assert "tensors, worst first (estimated from histograms)" in done.stdout
    assert len(done.stdout.splitlines()) == 6
    assert "layers are not measured" in done.stderr


@pytest.mark.slow
def test_the_command_with_data_writes_the_worst_layers(calibrated: Path) -> None:
    done = command("net/model.onnx", "--data", "imgs", "--limit", 8, "-o", "worst.txt", "--keep", 2)
    assert "layers, worst first: SQNR of the outputs" in done.stdout
    assert "wrote  worst.txt" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert len(expand_name_files(("@worst.txt",))) == 2
    told = json.loads(command("net/model.onnx", "--data", "imgs", "--limit", 8, "--json").stdout)
    assert [layer["node"] for layer in told["layers"]][:2] == list(expand_name_files(("@worst.txt",)))
    assert told["kept"] == []
    assert told["samples"] == 8
    with pytest.raises(StaleError):
        command("net/model.onnx", "--data", "imgs", "-o", "worst.txt")


def test_the_command_marks_scales_that_do_not_fit(calibrated: Path) -> None:
    quantkit.quantize("net/model.onnx", "q.onnx", statistics=STATS)
    model = load_model("q.onnx")
    onnx.save(edited(model, scales_of(model)[0][5], times(8)).proto, "broken.onnx")
    done = command("net/model.onnx", "--against", "broken.onnx", "--data", "imgs", "--limit", 8)
    assert " !" in done.stdout
    assert "!  a scale of its inputs does not fit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--limit", 3), "limit= has no effect: it is for data="),
        (("--keep", 3, "--data", "imgs"), "--keep has no effect: it is for --exclude-file"),
        (("--against", "q.onnx", "--rule", "mse", "--data", "imgs"), "rule= has no effect"),
        (("--against", "q.onnx", "--tensorrt-version", "8.6.1", "--data", "imgs"), "tensorrt_version= has no effect"),
        (("--table", "net/model.calib", "--rule", "mse", "--data", "imgs"), "rule= has no effect"),
        (("--device", 1), "device= has no effect: it is for --parity"),
        (("--parity",), "--parity compares a Q/DQ model with its engine on data"),
        (("-o", "worst.txt"), "none can be kept"),
    ],
)
def test_options_that_would_change_nothing(calibrated: Path, arguments: tuple[object, ...], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        command("net/model.onnx", *arguments)
    assert not Path("worst.txt").exists()


@pytest.mark.parametrize("beside", [True, False])
def test_statistics_of_images_that_were_prepared_otherwise_are_refused(calibrated: Path, beside: bool) -> None:
    """With the spec beside the network gone, `unit` would be taken."""
    asked = ("--preprocess", "unit") if beside else ()
    if not beside:
        Path("net/preprocess.toml").unlink()
    with pytest.raises(StaleError, match=r"model\.stats\.safetensors is from images preprocessed by: .*mean") as caught:
        command("net/model.onnx", "--data", "imgs", "--limit", 4, *asked)
    assert "the data would be preprocessed by: exact 16×16 bilinear, grey, ×1/255, nchw float32" in caught.value.problem
    assert "--preprocess" in caught.value.remedy
    assert command("net/model.onnx", *asked[:0]).exit_code == 0


def test_arrays_that_were_prepared_beforehand_go_with_any_statistics(calibrated: Path) -> None:
    model = load_model("net/model.onnx")
    spec = quantkit.Preprocess.model_validate(quantkit.PRESETS["unit"])
    feed, _ = open_data("imgs", model.inputs, spec, DataOptions(limit=4))
    np.savez("few.npz", **next(feed.portions()).batch)
    assert command("net/model.onnx", "--data", "few.npz", "--limit", 4).exit_code == 0
    quantkit.calibrate("net/model.onnx", "few.npz", output="few.calib")
    line = ("net/model.onnx", "--stats", "few.stats.safetensors", "--data", "imgs", "--limit", 4)
    assert command(*line, "--preprocess", "unit").exit_code == 0


@pytest.mark.slow
def test_pixels_that_were_prepared_by_chance_are_a_warning_also_in_quiet(calibrated: Path) -> None:
    Path("net/preprocess.toml").unlink()
    done = command("net/model.onnx", "--data", "imgs", "--limit", 4, "-q", "--table", "net/model.calib")
    assert done.stdout == ""
    assert done.stderr.startswith("warning: the preprocessing of this network is unknown")
    told = json.loads(
        command("net/model.onnx", "--data", "imgs", "--limit", 4, "--json", "--table", "net/model.calib").stdout
    )
    assert set(told["warnings"]) <= set(told["notes"])
    assert len(told["warnings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--html", "there.html"), "another --html keeps both"),
        (("--html", "net/model.onnx"), "give another --html"),
        (("--html", "nowhere/x.html"), "write elsewhere with --html"),
        (("--html", "net/model.onnx", "--force"), "give another --html"),
        (("--data", "imgs", "-o", "net/preprocess.toml"), "another --exclude-file keeps both"),
        (("--data", "imgs", "-o", "imgs", "--force"), "give the path of a file with --exclude-file"),
        (("--data", "imgs", "-o", "x", "--html", "x"), "give another --html"),
        (("--data", "imgs", "-o", "x", "--html", "net/../x"), "give another --html"),
    ],
)
def test_what_cannot_be_written_names_its_option(calibrated: Path, arguments: tuple[object, ...], remedy: str) -> None:
    (calibrated / "there.html").write_text("mine")
    with pytest.raises(QuantkitError) as caught:
        command("net/model.onnx", *arguments)
    assert remedy in caught.value.remedy


def test_parity_without_tensorrt_names_no_option_that_it_does_not_have(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    quantkit.quantize("net/model.onnx", "q.onnx", statistics=STATS, options=QuantizeOptions(repairs=()))
    with pytest.raises(BackendError, match="TensorRT is not installed") as caught:
        command("net/model.onnx", "--against", "q.onnx", "--data", "imgs", "--limit", 2, "--parity")
    assert "--backend" not in caught.value.remedy
    with pytest.raises(BackendError, match='or backend="onnxruntime"'):
        refuse_without_calibrators()


def test_without_statistics_it_says_how_to_get_them(place: Path) -> None:
    with pytest.raises(UsageError, match="there are no statistics of"):
        command("net/model.onnx")


def test_values_render_themselves(calibrated: Path) -> None:
    found = layers("net/model.onnx", statistics="net/model.stats.safetensors", data="imgs", options=FEW)
    page = found._repr_html_()
    assert ">stem/conv</td>" in page
    assert page.count("<table>") == page.count("</table>") == 2
    json.dumps(dict(found.provenance))


# Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "exactly one source of the quantization is needed, not none"),
        ({"statistics": STATS, "table": "net/model.calib"}, "statistics and table"),
        ({"table": "net/model.calib"}, "measured on data"),
        ({"statistics": STATS, "options": LayersOptions(keep=1)}, "layers cannot be ranked"),
        ({"against": "q", "data": "d", "options": LayersOptions(exclude=("a",))}, "already defines what is quantized"),
    ],
)
def test_calls_that_say_too_little_or_too_much(calibrated: Path, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        layers("net/model.onnx", **given)


@pytest.mark.parametrize("wrong", [{"keep": 1, "keep_db": 3.0}, {"keep": 0}, {"policy": "most"}])
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LayersOptions(**wrong)


@pytest.mark.slow
def test_networks_that_do_not_belong_together(calibrated: Path) -> None:
    quantkit.quantize("net/model.onnx", "q.onnx", statistics=STATS)
    other = network(
        [onnx.helper.make_node("Gemm", ["x", "w"], ["y"], "fc")],
        {"x": ["N", 4]},
        ["y"],
        {"w": np.eye(4, dtype=np.float32)},
    )
    onnx.save(other, "other.onnx")
    with pytest.raises(ModelError, match=r"was not derived from other\.onnx: its inputs are image"):
        layers("other.onnx", against="q.onnx", data="imgs")
    with pytest.raises(ModelError, match="has no QuantizeLinear"):
        layers("net/model.onnx", against="net/model.onnx", data="imgs")
    with pytest.raises(ModelError, match="has no QuantizeLinear"):
        layers("net/model.onnx", against="net/model.onnx")
    with pytest.raises(UsageError, match="measured on data"):
        layers("net/model.onnx", against="q.onnx")
    with pytest.raises(ModelError, match="already has Q/DQ pairs"):
        layers("q.onnx", against="q.onnx", data="imgs")
    with pytest.raises(StaleError, match="belongs to another network"):
        layers("other.onnx", statistics=STATS)
    with pytest.raises(DataError, match="does not exist"):
        layers("net/model.onnx", statistics=STATS, data="nowhere")
    with pytest.raises(UsageError, match="the outputs reach only"):
        layers("net/model.onnx", against="q.onnx", data="imgs", options=replace(FEW, keep_db=500.0))


def test_samples_fill_the_batches_that_a_network_is_fixed_to(place: Path) -> None:
    proto = onnx.load("net/model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(proto, "net/seven.onnx")
    quantkit.calibrate("net/seven.onnx", "imgs", output="net/seven.calib")
    found = layers(
        "net/seven.onnx", table="net/seven.calib", data="imgs", options=LayersOptions(data=DataOptions(limit=16))
    )
    assert found.samples == 14
