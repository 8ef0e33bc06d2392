"""INT8 and FP8 in one network: every operator in one type, borders, targets, and choices that are no mix after all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import quantkit
from quantkit.cli import invoke
from quantkit.errors import UsageError
from quantkit.graph import Model, load_model
from quantkit.graph.index import wire_graph
from quantkit.graph.operators import WEIGHTED
from quantkit.linting.registry import lint_model
from quantkit.qdq.layer_counts import fp8_tensors
from quantkit.qdq.reader import moved_tensors
from quantkit.quantization.record import METADATA_KEY
from quantkit.sensitivity.subject import describe_both_types
from quantkit.values import QuantizedType

DATA = Path(__file__).parents[2] / "calibration_data"
STATISTICS = "model.stats.safetensors"
CONVOLUTIONS = "block*/*/conv"
WITH_KERNEL = ("block1/*", "block?/expand/*", "block?/project/*", "head/*", "classifier")
"""The operators of the bundled network that have FP8 kernels."""


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the bundled network, sixteen images, and statistics of them."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(DATA / name, folder)
    (folder / "imgs").mkdir()
    for number, path in enumerate(sorted((DATA / "images").rglob("*.png"))[::25]):
        shutil.copy(path, folder / "imgs" / f"{number}.png")
    quantkit.calibrate(folder / "model.onnx", folder / "imgs", output=folder / "model.calib")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def quantized(output: str | None = None, **options: Any) -> Any:
    return quantkit.quantize("model.onnx", output, statistics=STATISTICS, **{"rule": "minmax"} | options)


def content(made: Any) -> bytes:
    return bytes(made.proto.SerializeToString(deterministic=True))


def types_read(proto: onnx.ModelProto) -> dict[str, set[bool]]:
    """Return operator that reads behind pairs → whether what it reads there is FP8."""
    model = Model(Path("net.onnx"), proto, "")
    wiring, in_fp8 = wire_graph(proto.graph), fp8_tensors(model)
    made = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    found: dict[str, set[bool]] = {}
    for node in proto.graph.node:
        if node.op_type in WEIGHTED | {"Add"}:
            moved = [moved_tensors(wiring, name) for name in node.input[:2]]
            found[node.name] = {name in in_fp8 for names in moved for name in names if name in made}
    return found


@pytest.mark.parametrize(("base", "other"), [("int8", "fp8"), ("fp8", "int8")])
def test_a_choice_that_gives_all_operators_one_type_is_that_type(base: str, other: str) -> None:
    for policy, weights in (("tensorrt", None), ("all", "mixed")):
        whole = quantized(type=other, policy=policy)
        named = quantized(type=base, **{other: "*"}, policy=policy, weights=weights)
        assert content(named) == content(whole)
        assert (named.type, named.form) == (whole.type, whole.form)
        assert named.type.value == other


@pytest.mark.parametrize(("nodes", "kind"), [("*", "fp8"), ("head/*", "mixed")])
def test_the_file_is_called_by_what_it_holds(nodes: str, kind: str, place: Path) -> None:
    assert invoke(["quantize", "model.onnx", "--fp8", nodes, "--rule", "minmax", "-q"]) == 0
    assert fp8_tensors(load_model(place / f"model.{kind}.onnx"))


@pytest.mark.parametrize("policy", ["tensorrt", "all"])
@pytest.mark.parametrize("weights", [None, "float"])
def test_every_operator_reads_one_type(policy: str, weights: str | None) -> None:
    made = quantized(fp8=("block1/*", "block3/project/*", "head/*"), policy=policy, weights=weights)
    kinds = types_read(made.proto)
    assert all(len(found) <= 1 for found in kinds.values())
    assert {kind for found in kinds.values() for kind in found} == {False, True}
    for node, kind in made.types.items():
        if kinds.get(node):
            assert kinds[node] == {kind is QuantizedType.FP8}
    assert made.opset == 19
    assert (made.type.value, made.form.value) == ("mixed", weights or "mixed")
    onnx.checker.check_model(made.proto, full_check=True)
    rules = {found.rule for found in lint_model(Model(Path("net.onnx"), made.proto, ""))}
    assert not rules & {"unequal-types", "fp8-kernel", "opset", "scale-mismatch"}


def test_a_tensor_that_both_types_read_has_a_pair_of_each() -> None:
    net = "(float[2, 16, 4, 4] x) => (float[2, 16, 4, 4] y, float[2, 16, 4, 4] z) { y = Conv(x, w) z = Conv(x, v) }"
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(16, 16, 1, 1)).astype(np.float32) for name in "wv"}
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 19]> net {net}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, "two.onnx")
    x = rng.normal(size=(2, 16, 4, 4)).astype(np.float32)
    made = quantkit.quantize("two.onnx", data=[x], fp8="z", rule="minmax", repairs=())
    amax = float(np.abs(x).max())
    assert made.pairs["x"] == pytest.approx(amax / 127)
    assert made.also_fp8["x"] == pytest.approx(amax / 448)
    assert made.types == {"y": QuantizedType.INT8, "z": QuantizedType.FP8}
    assert made.types_text == "1 operator INT8, 1 FP8; 1 activation has a pair of each type"
    alone = [quantkit.quantize("two.onnx", data=[x], type=kind, rule="minmax", repairs=()) for kind in ("int8", "fp8")]
    (y, z), (int8, _), (_, fp8) = (ReferenceEvaluator(each.proto).run(None, {"x": x}) for each in (made, *alone))
    np.testing.assert_array_equal(y, int8)
    np.testing.assert_array_equal(z, fp8)
    found = quantkit.layers("two.onnx", against=made.proto, data=[x])
    (note,) = [note for note in found.notes if note.startswith("activations with a pair of INT8 and one of FP8")]
    (error,) = [tensor for tensor in found.tensors if tensor.name == "x"]
    assert error.scale == pytest.approx(amax / (448 if note.endswith("FP8: x") else 127))


def test_activations_with_pairs_of_both_types_are_one_note_for_each_type() -> None:
    """A detector has dozens."""
    grids = {name: SimpleNamespace(is_fp8=name == "b") for name in "abc"}
    found = describe_both_types(cast(Any, SimpleNamespace(in_both_types=("a", "b", "c"), scales=grids)))
    assert [note.rpartition(" in ")[2] for note in found] == ["INT8: a, c", "FP8: b"]


def test_an_add_has_the_type_of_what_it_fuses_into_or_no_pair() -> None:
    """block1 of the bundled network adds its input to block1/b/conv; what follows reads the sum."""
    whole = quantized()
    adds = [node for node in whole.types if "add" in node]
    assert adds
    front = quantized(fp8=("block1/b/conv",))
    both = quantized(fp8=("block1/b/conv", "block2/expand/conv"))
    assert adds[0] not in front.types
    assert both.types[adds[0]] is QuantizedType.FP8


def test_the_record_names_the_types(place: Path) -> None:
    made = quantized("record.onnx", fp8="block1/*", int8=())
    record = json.loads(load_model("record.onnx").metadata[METADATA_KEY])
    named = sorted(node for node, kind in made.types.items() if kind is QuantizedType.FP8)
    assert (record["type"], record["weights"], record["fp8"]) == ("mixed", "mixed", named)
    again = quantized("record.onnx", fp8="block1/*")
    assert again.reused
    assert (again.type, again.form, dict(again.types)) == (made.type, made.form, dict(made.types))
    assert made.fp8_layers == 2
    assert made.int8_layers[0] == made.int8_layers[1] - 2


def test_operators_without_an_fp8_kernel_stay_float_if_fp8_is_asked_for() -> None:
    made = quantized(fp8=CONVOLUTIONS)
    assert {str(why).split(" (")[0] for why in made.left.values()} == {"TensorRT has no FP8 kernel for it"}
    left = quantized(type="fp8").left
    whole = quantized(type="fp8", int8=tuple(left))
    assert not whole.left
    assert {node for node, kind in whole.types.items() if kind is QuantizedType.INT8} >= left.keys() > set()


def test_a_network_that_has_one_type_is_called_so_and_names_what_could_not_have_the_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first convolution reads one channel: no FP8 kernel. It stays float, and all others are INT8."""
    line = ["quantize", "model.onnx", "--stats", STATISTICS, "--fp8", "stem/conv", "--rule", "minmax"]
    assert invoke([*line, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(path).name for path in document["files"]] == ["model.int8.onnx"]
    kept = "1 operator that was to be FP8 stays float: stem/conv: TensorRT has no FP8 kernel for it (1 input channels)"
    assert document["notes"] == [kept]
    excluded = quantized(exclude=("stem/conv",))
    assert content_of("model.int8.onnx") == content_of_nodes(excluded)
    both = quantized(fp8=("stem/conv", "head/conv"))
    assert kept in both.notes
    assert set(both.types.values()) == set(QuantizedType)
    assert kept not in quantized(fp8=("stem/conv", "head/conv"), exclude="stem/conv").notes
    none_left = quantized(type="fp8", int8=WITH_KERNEL)
    assert (none_left.type.value, len(none_left.left)) == ("int8", 4)
    assert "4 operators that were to be FP8 stay float" in {note.split(": ")[0] for note in none_left.notes}
    assert kept in quantkit.layers("model.onnx", statistics=STATISTICS, fp8="stem/conv", rule="minmax").notes


def test_evaluate_and_layers_know_both(place: Path) -> None:
    quantized("both.onnx", fp8=WITH_KERNEL)
    made = quantkit.evaluate(["model.onnx", "both.onnx"], "imgs", limit=4)
    assert 0 < made.models[1].fp8_layers < made.models[1].int8_layers[1]
    assert made.models[1].int8_layers[0] == made.models[1].int8_layers[1] - made.models[1].fp8_layers
    assert {note.split(" is ")[0] for note in made.notes if " is simulated" in note} == {"INT8", "FP8"}
    found = quantkit.layers("model.onnx", against="both.onnx", data="imgs", limit=1)
    kinds = {layer.node: layer.type for layer in found.layers if not layer.kept}
    assert (kinds["classifier"], kinds["stem/conv"]) == ("float8e4m3fn", "int8")
    assert "Gemm, FP8" in {layer.title for layer in found.layers}
    estimated = quantkit.layers("model.onnx", statistics=STATISTICS, fp8=WITH_KERNEL, rule="minmax")
    scales = {error.name: error.scale for error in estimated.tensors if not error.weight}
    assert scales == pytest.approx({error.name: error.scale for error in found.tensors if not error.weight})


def test_repairs_of_int8_leave_fp8_alone(place: Path) -> None:
    made = quantized(fp8=("block1/*", "head/*"), data="imgs", repairs=("round", "bias"))
    alone = quantized(fp8=("block1/*", "head/*"), data="imgs", repairs=("bias",))
    rounded = set(made.repairs["round"].gains)
    assert rounded == {n for n, k in made.types.items() if k is QuantizedType.INT8 and "add" not in n and n != "gap"}
    assert set(alone.repairs["bias"].gains) >= {"head/conv"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fp8": "head/*", "tensorrt_version": "8.6.1"}, "TensorRT 8 has no FP8: its NvInfer.h says"),
        ({"fp8": "head/*", "weights": "int8"}, "weights are stored as int8, but the type is mixed"),
        ({"weights": "mixed"}, "weights are stored as mixed, but the type is int8"),
        ({"fp8": "head/*", "rule": "entropy"}, "the rule entropy counts the levels of INT8"),
        ({"fp8": "head/*", "gpu_profile": "gpu.json"}, "a GPU profile has times of INT8 and float, none of FP8"),
        ({"int8": "head/*"}, 'int8= names nodes among others of another type, and type="int8" is for all of them'),
        ({"fp8": "nothing"}, "fp8='nothing': no node of the network has this name or operator"),
        ({"fp8": "Relu"}, "fp8='Relu': none of these nodes has a type of its own"),
        ({"type": "mixed"}, "unknown quantized type 'mixed'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        quantized("new.onnx", **options)
    assert expected in str(error.value)
    assert not Path("new.onnx").exists()


def test_a_rule_that_fp8_lacks_is_refused_before_the_data_are_read(place: Path) -> None:
    phases: list[str] = []
    with pytest.raises(UsageError, match="the rule entropy counts the levels of INT8"):
        quantkit.quantize("model.onnx", data="imgs", fp8="head/*", rule="entropy", phase=phases.append)
    assert phases == []


def test_a_table_has_no_scales_for_it(place: Path) -> None:
    with pytest.raises(UsageError, match="a calibration table holds scales of INT8"):
        quantkit.quantize("model.onnx", table="model.calib", fp8="head/*")


def test_names_can_come_from_a_file(place: Path) -> None:
    from quantkit.cli.application import app

    Path("names.fp8").write_text("head/*  # of the most outliers\n")
    line = ["quantize", "model.onnx", "--fp8", "@names.fp8", "--rule", "minmax", "-q"]
    assert not app.main(line, standalone_mode=False)
    assert content_of("model.mixed.onnx") == content_of_nodes(quantized(fp8="head/*"))


def content_of(path: str) -> list[bytes]:
    return [node.SerializeToString() for node in load_model(path).proto.graph.node]


def content_of_nodes(made: Any) -> list[bytes]:
    return [node.SerializeToString() for node in made.proto.graph.node]
