"""Outputs of every kind: selected, coordinates, integer, masks, of any length; each verdict says what was compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantkit.errors import DataError, ModelError
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import Evaluation
from tests.support.networks import network

RANDOM = np.random.default_rng(6)
X = RANDOM.standard_normal((24, 6)).astype(np.float32)
WEIGHT = RANDOM.standard_normal((6, 5)).astype(np.float32)
TYPES = {"places": TensorProto.INT64, "class": TensorProto.INT64, "mask": TensorProto.BOOL}
UNLABELLED = EvaluateOptions(without_labels=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=X)
    return tmp_path / "x.npz"


def saved(path: Path, nodes: list[Any], outputs: list[str], weights: dict[str, Any], batch: Any = "N") -> Path:
    proto = network(nodes, {"x": [batch, 6]}, outputs, weights)
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = TYPES.get(value.name, TensorProto.FLOAT)
    onnx.save(proto, path)
    return path


def pair(folder: Path, nodes: list[Any], outputs: list[str], first: Any, second: Any, **other: Any) -> list[Path]:
    """Two networks that differ in the weight `w`."""
    batch = other.pop("batch", "N")
    return [
        saved(folder / f"{name}.onnx", nodes, outputs, {"w": w, **other}, batch)
        for name, w in (("a", first), ("b", second))
    ]


def read_again(made: Evaluation) -> Evaluation:
    parsed = parse_evaluation(evaluation_json(made), "it")
    assert parsed.candidates[0].matches == made.candidates[0].matches
    assert (parsed.doubts, parsed.scores, parsed.uncompared) == (made.doubts, made.scores, made.uncompared)
    return made


def test_sorted_values_are_no_class_scores_and_indices_are_counted(tmp_path: Path, data: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("TopK", ["h", "k"], ["best", "places"], axis=1),
    ]
    models = pair(tmp_path, nodes, ["best", "places"], WEIGHT, WEIGHT[:, ::-1].copy(), k=np.array([3]))
    made = read_again(evaluate(models, data))
    (candidate,) = made.candidates
    assert made.scores is None
    assert candidate.agreement is None
    assert candidate.outputs[0].sqnr_db > 100
    places = np.argsort(-(X @ WEIGHT), axis=1)[:, :3]
    (match,) = candidate.matches
    assert (match.name, match.samples, match.values) == ("places", 24, 72)
    assert match.equal_values == (places == 4 - places).sum()
    assert match.equal_samples == (places == 4 - places).all(axis=1).sum() == 0
    assert "it has the reference's places on none of 24 samples" in made.verdict[0]
    assert any("place by place: 'best', 'places'" in note for note in made.notes)


def test_the_worst_output_counts_beside_equal_scores(tmp_path: Path, data: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["scores"]),
        helper.make_node("MatMul", ["x", "w"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "last"], ["maps"]),
    ]
    other = {"v": WEIGHT, "last": np.array([1])}
    models = pair(tmp_path, nodes, ["scores", "maps"], WEIGHT, np.zeros_like(WEIGHT), **other)
    made = evaluate(models, data, options=UNLABELLED)
    document = evaluation_json(made)["models"][1]
    assert (document["worst_output"], document["sqnr_db"]) == ("maps", 0.0)
    assert "an SQNR of 0.0 dB at maps, its worst output" in made.verdict[0]
    assert made.scores_assumed


def test_a_class_that_the_network_picks_itself_is_compared_by_equality(tmp_path: Path, data: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ArgMax", ["h"], ["class"], axis=1, keepdims=0),
        helper.make_node("Greater", ["h", "zero"], ["mask"]),
    ]
    models = pair(tmp_path, nodes, ["class", "mask"], WEIGHT, np.round(WEIGHT), zero=np.float32(0))
    made = read_again(evaluate(models, data, options=UNLABELLED))
    scores, coarse = X @ WEIGHT, X @ np.round(WEIGHT)
    same = scores.argmax(1) == coarse.argmax(1)
    found = {match.name: match for match in made.candidates[0].matches}
    assert found["class"].equal_samples == found["class"].equal_values == same.sum()
    assert found["mask"].equal_values == ((scores > 0) == (coarse > 0)).sum()
    assert made.candidates[0].outputs == ()
    assert made.candidates[0].worst_match is not None


def test_what_is_infinite_or_undefined_in_both_does_not_count(tmp_path: Path, data: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Log", ["h"], ["log"]),
        helper.make_node("Mul", ["h", "inf"], ["signs"]),
    ]
    models = pair(tmp_path, nodes, ["log", "signs"], WEIGHT, 2 * WEIGHT, inf=np.float32(np.inf))
    made = evaluate(models, data, options=UNLABELLED)
    (log,) = made.candidates[0].outputs
    kept = np.log((X @ WEIGHT)[X @ WEIGHT > 0].astype(np.float64))
    assert log.sqnr_db == pytest.approx(10 * math.log10((kept**2).mean() / math.log(2) ** 2), abs=1e-3)
    assert made.uncompared == ("signs",)
    assert any("'log' holds NaN in both models" in text for text in made.warnings)
    assert "signs could not be compared" in made.verdict[0]


def test_undefined_in_one_alone_is_refused(tmp_path: Path, data: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Log", ["h"], ["log"])]
    models = pair(tmp_path, nodes, ["log"], WEIGHT, -WEIGHT)
    with pytest.raises(DataError, match="output 'log' holds NaN or Inf for"):
        evaluate(models, data, options=UNLABELLED)


@pytest.mark.parametrize(("second", "sqnr"), [(0.0, math.inf), (1.0, -math.inf)])
def test_a_reference_of_zeros_is_equal_or_all_lost(tmp_path: Path, data: Path, second: float, sqnr: float) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = evaluate(pair(tmp_path, nodes, ["y"], 0 * WEIGHT, second * WEIGHT), data, options=UNLABELLED)
    assert made.candidates[0].outputs[0].sqnr_db == sqnr
    assert ("exactly the reference's y" in made.verdict[0]) == (sqnr > 0)


@pytest.mark.parametrize("batch", ["N", 1])
def test_outputs_of_any_length_are_not_compared_where_lengths_differ(tmp_path: Path, data: Path, batch: Any) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Greater", ["h", "zero"], ["mask"]),
        helper.make_node("Compress", ["h", "flat"], ["kept"]),
        helper.make_node("Reshape", ["mask", "all"], ["flat"]),
    ]
    nodes = [nodes[0], nodes[1], nodes[3], nodes[2]]
    extra = {"zero": np.float32(0), "all": np.array([-1])}
    models = pair(tmp_path, nodes, ["h", "kept"], WEIGHT, np.round(WEIGHT), batch=batch, **extra)
    made = evaluate(models, data, options=UNLABELLED)
    assert made.samples == 24
    assert made.uncompared == ("kept",)
    assert "kept could not be compared" in made.verdict[0]
    assert [output.name for output in made.candidates[0].outputs] == ["h"]


def test_sequences_are_named_and_left_out(tmp_path: Path, data: Path) -> None:
    proto = network(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("SequenceConstruct", ["y", "y"], ["both"]),
        ],
        {"x": ["N", 6]},
        ["y"],
        {"w": WEIGHT},
    )
    proto.graph.output.append(helper.make_tensor_sequence_value_info("both", TensorProto.FLOAT, None))
    paths = [tmp_path / f"{name}.onnx" for name in "ab"]
    for path in paths:
        onnx.save(proto, path)
    made = evaluate(paths, data, options=UNLABELLED)
    assert any("output 'both' is not compared: it is a sequence" in note for note in made.notes)
    del proto.graph.output[0]
    onnx.save(proto, paths[0])
    with pytest.raises(ModelError, match="no output is a tensor"):
        evaluate(paths[0], data)


def test_labels_are_not_said_to_be_missing_where_they_are_not_read(tmp_path: Path) -> None:
    """A network that ends in ArgMax: no class scores, so that nothing looks for labels; the note says so."""
    np.savez(tmp_path / "x.npz", x=X, labels=np.argmax(X @ WEIGHT, axis=1))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ArgMax", ["h"], ["class"], axis=1, keepdims=0),
    ]
    models = pair(tmp_path, nodes, ["class"], WEIGHT, WEIGHT[:, ::-1].copy())
    (note,) = [note for note in evaluate(models, tmp_path / "x.npz").notes if "labels" in note]
    assert note.startswith("no metric: no output holds class scores, so labels are not read")
    assert "no labels: output errors only" in evaluate(models, tmp_path / "x.npz", options=UNLABELLED).notes
