"""What forbids a conclusion stands beside the verdict: guesses, scales of other images, references at chance level."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper
from PIL import Image

import quantkit
from quantkit.calibration.calibrate import calibrate
from quantkit.cli.evaluate import evaluate as evaluate_command
from quantkit.cli.layers import layers as layers_command
from quantkit.errors import ModelError
from quantkit.evaluation.compare import compare
from quantkit.evaluation.doubts import reference_doubt
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import ModelKind, ModelScore
from quantkit.metrics.topk import TopK
from quantkit.preprocess import PRESETS
from quantkit.quantization.quantize import quantize
from quantkit.quantization.record import METADATA_KEY
from quantkit.report.html import evaluation_page
from tests.support.networks import network

MODEL = "net/model.onnx"
RANDOM = np.random.default_rng(7)
UNIT, RAW = PRESETS["unit"], PRESETS["raw"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells red from blue, images of both, statistics and a Q/DQ model."""
    folder = tmp_path_factory.mktemp("colours")
    for number, name in enumerate(("blue", "red")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = RANDOM.integers(0, 120, (4, 4, 3), np.uint8)
            pixels[..., 0 if number else 2] += 120
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    weight = np.zeros((2, 3, 4, 4), np.float32)
    weight[0, 2], weight[1, 0] = 1, 1
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Flatten", ["c"], ["y"], "flat")]
    onnx.save(network(nodes, {"x": ["N", 3, 4, 4]}, ["y"], {"w": weight}), folder / "m.onnx")
    calibrate(folder / "m.onnx", folder / "images", preprocess=UNIT, output=folder / "m.calib")
    quantize(folder / "m.onnx", folder / "m.int8.onnx", statistics=folder / "m.stats.safetensors")
    return folder


def test_a_guess_stands_beside_the_verdict_everywhere(colours: Path) -> None:
    models = [colours / "m.onnx", colours / "m.int8.onnx"]
    made = evaluate(models, colours / "images", options=EvaluateOptions(max_drop=50))
    (doubt,) = made.doubts
    assert doubt.startswith("the preprocessing was guessed (exact 4×4 bilinear, rgb, ×1/255")
    assert "--preprocess" in doubt
    assert made.statements == (*made.verdict, f"In doubt: {doubt}.")
    assert "but the figures are in doubt" in made.verdict[0]
    document = json.loads(json.dumps(evaluation_json(made)))
    assert document["doubts"] == [doubt]
    page = evaluation_page(made)
    assert page.count(f"In doubt: {doubt}.") == 1 == page.count(doubt)
    assert "within budget" not in page
    assert "In doubt" in made._repr_html_()
    again = parse_evaluation(document, "it")
    assert again.doubts == made.doubts
    assert any(note.endswith(f"is in doubt: {doubt}") for note in compare([made, again]).notes)


def command(verb: click.Command, *arguments: object) -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(verb, given, catch_exceptions=False, standalone_mode=False)


def test_a_budget_is_not_kept_by_figures_in_doubt(colours: Path) -> None:
    """A gate in CI asks whether the budget is kept; a guess does not show it."""
    asked = (colours / "m.onnx", colours / "m.int8.onnx", "--data", colours / "images")
    done = command(evaluate_command, *asked, "--max-drop", 1)
    assert done.return_value == 3
    assert "nothing shows that the budget of 1 percentage point is kept: the figures are in doubt" in done.stderr
    assert "over the budget" not in done.output
    printed = command(evaluate_command, *asked, "--max-drop", 1, "--json").stdout
    assert json.loads(printed)["within_budget"] is False
    assert command(evaluate_command, *asked, "--max-drop", 1, "--preprocess", "unit").return_value == 0
    assert command(evaluate_command, *asked).return_value == 0


def test_layers_states_a_guess_beside_its_figures(colours: Path) -> None:
    asked = (colours / "m.onnx", "--data", colours / "images", "--against", colours / "m.int8.onnx")
    done = command(layers_command, *asked)
    assert "• In doubt: the preprocessing was guessed (exact 4×4 bilinear" in " ".join(done.stdout.split())
    assert json.loads(command(layers_command, *asked, "--json").stdout)["doubts"][0].endswith("--preprocess")
    assert "In doubt" not in command(layers_command, *asked, "--preprocess", "unit").output


@pytest.mark.parametrize("candidate", ["m.int8.onnx", "m.onnx+m.calib"])
def test_scales_of_images_prepared_otherwise_are_a_doubt(colours: Path, candidate: str) -> None:
    models = [
        colours / "m.onnx",
        f"{colours / 'm.onnx'}+{colours / 'm.calib'}" if "+" in candidate else colours / candidate,
    ]
    assert evaluate(models, colours / "images", preprocess=UNIT).doubts == ()
    (doubt,) = evaluate(models, colours / "images", preprocess=RAW).doubts
    assert doubt.startswith(f"the scales of {candidate} are of images prepared by: exact 4×4 bilinear, rgb, ×1/255")
    np.save(colours / "x.npy", RANDOM.random((8, 3, 4, 4), np.float32))
    assert evaluate(models, colours / "x.npy", options=EvaluateOptions(without_labels=True)).doubts == ()


def test_a_model_that_was_made_from_another_reference_is_named(colours: Path, tmp_path: Path) -> None:
    proto = onnx.load(colours / "m.onnx")
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight * np.float32(1.5), "w"))
    onnx.save(proto, tmp_path / "other.onnx")
    made = evaluate([tmp_path / "other.onnx", colours / "m.int8.onnx"], colours / "images", preprocess=UNIT)
    assert made.warnings == ("m.int8.onnx was quantized from another model than other.onnx, the reference",)


def test_labels_in_another_order_are_a_doubt_and_no_figure(colours: Path, tmp_path: Path) -> None:
    swapped = shutil.copytree(colours / "images", tmp_path / "images")
    for before, after in (("red", "green"), ("blue", "red"), ("green", "blue")):
        (swapped / before).rename(swapped / after)
    made = evaluate(colours / "m.onnx", swapped, preprocess=UNIT)
    assert made.reference.metrics["top1"] == 0.0
    (doubt,) = made.doubts
    assert "would be on all 24 samples if the labels had another order" in doubt
    assert made.statements == (f"In doubt: {doubt}.",)
    (swapped / "names.txt").write_text("red\nblue\n")
    options = EvaluateOptions(classes=swapped / "names.txt")
    assert evaluate(colours / "m.onnx", swapped, preprocess=UNIT, options=options).doubts == ()


@pytest.mark.parametrize(
    ("value", "share", "higher", "doubted"),
    [
        (0.0, True, True, True),
        (0.01, True, True, False),
        (0.0, False, True, False),
        (0.0, True, False, False),
    ],
)
def test_a_share_of_zero_can_lose_nothing(value: float, share: bool, higher: bool, doubted: bool) -> None:
    metric = TopK(1)
    metric.share, metric.higher_is_better = share, higher
    reference = ModelScore("m", ModelKind.FLOAT, None, "", 0, {"top1": value}, None)
    assert (reference_doubt(reference, metric, None, None, None) is not None) == doubted


def test_a_doubt_is_part_of_the_value(colours: Path) -> None:
    made = evaluate(colours / "m.onnx", colours / "images", preprocess=UNIT)
    assert made.doubts == ()
    assert replace(made, doubts=("a", "b")).statements == ("In doubt: a.", "In doubt: b.")


@pytest.mark.parametrize("source", ["statistics", "table"])
def test_a_qdq_model_of_images_prepared_otherwise_is_doubtful(source: str, place: Path) -> None:
    made = quantkit.calibrate(MODEL, "imgs", preprocess="unit", output="x.calib")
    scales = made.statistics if source == "statistics" else place / "x.calib"
    quantkit.quantize(MODEL, "x.int8.onnx", **{source: scales})
    own = quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs", preprocess="unit")
    other = quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs")
    assert not [text for text in own.doubts if "prepared by" in text]
    assert [text for text in other.doubts if "the scales of x.int8.onnx are of images prepared by" in text]


def test_a_flipped_bit_in_the_record_of_a_model_is_damage(place: Path) -> None:
    quantkit.quantize(MODEL, "x.int8.onnx", data="imgs")
    content = Path("x.int8.onnx").read_bytes()
    Path("x.int8.onnx").write_bytes(content.replace(b'"samples":60', b'"samples":61'))
    assert Path("x.int8.onnx").read_bytes() != content
    with pytest.raises(ModelError, match="is damaged: its content"):
        quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs")


def test_a_damaged_record_in_a_model_is_an_error(place: Path) -> None:
    model = onnx.load(MODEL)
    model.metadata_props.add(key=METADATA_KEY, value='{"scales": 5}')
    onnx.save(model, "damaged.onnx")
    with pytest.raises(ModelError, match=r"'quantkit.quantize' of damaged\.onnx is not a record"):
        quantkit.evaluate([MODEL, "damaged.onnx"], "imgs")
