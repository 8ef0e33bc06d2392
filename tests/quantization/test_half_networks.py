"""Float16 networks are repaired as their float32 twins are, and reach what these reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import quantkit
from quantkit import DataOptions, QuantizeOptions
from quantkit.backends.session import open_session
from quantkit.data import open_data
from quantkit.graph import Model, load_model
from quantkit.qdq.insertion import WeightForm
from quantkit.quantization.result import Quantization
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.rewrites.fp16 import convert_to_fp16
from tests.support.networks import BUNDLED

TWINS = 0.7
"""dB between twins. Codes of weights near a half fall either way where a scale is another by 2⁻¹¹, so that both are two
draws of the same noise: on 2,000 images they differ by 0.1 … 0.3 dB. Repairs are worth 1 dB and more."""


def outputs_of(model: Model, x: NDArray[Any]) -> NDArray[np.float64]:
    run = open_session(model, model.outputs, threads=1).runner()
    return np.asarray(run({model.inputs[0].name: x})[model.outputs[0]], np.float64)


def decibels(exact: NDArray[Any], other: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - other).sum()))


def half_of(path: Path, folder: Path, *, keep_io: bool = True) -> Path:
    """The network in float16, its inputs and outputs too unless they are kept."""
    model = load_model(path)
    target = folder / f"{path.stem}.half.onnx"
    onnx.save(convert_to_fp16(model, keep_io=keep_io).proto, target)
    return target


def changed(made: Quantization) -> dict[str, set[str]]:
    """Repair → what it changed."""
    return {name: set(report.gains) for name, report in made.repairs.items()}


def quantized(path: Path, repairs: tuple[str, ...], **data: Any) -> Quantization:
    """By `mse`: the importance of channels would be that of either twin's own weights."""
    options = QuantizeOptions(rule="mse", repairs=repairs, weights=WeightForm.FLOAT)
    return quantkit.quantize(path, options=options, **data)


@pytest.mark.parametrize("keep_io", [True, False])
def test_the_bundled_network_and_its_twin(keep_io: bool, tmp_path: Path) -> None:
    spec = quantkit.load_preprocess(BUNDLED / "preprocess.toml")
    data = {"data": BUNDLED / "images", "preprocess": spec, "limit": 96}
    paths = [BUNDLED / "model.onnx", half_of(BUNDLED / "model.onnx", tmp_path, keep_io=keep_io)]
    models = [load_model(path) for path in paths]
    found = []
    for path, model in zip(paths, models, strict=True):
        made = quantized(path, REPAIR_NAMES, **data)
        feed, _ = open_data(BUNDLED / "test", model.inputs, spec, DataOptions())
        x = np.concatenate([portion.batch["image"] for portion in feed.portions()])
        found.append((made, decibels(outputs_of(model, x), outputs_of(Model(path, made.proto, ""), x))))
    (single, theirs), (half, ours) = found
    assert changed(half) == changed(single)
    assert len(half.repairs["round"].gains) == 14
    assert {name.removesuffix("_float16") for name in half.pairs} == set(single.pairs)
    assert half.folded == single.folded
    assert len(half.folded) > 0
    assert abs(ours - theirs) < TWINS
    kinds = {numpy_helper.to_array(t).dtype for t in half.proto.graph.initializer}
    assert kinds <= {np.dtype(np.float16), np.dtype(np.int8), np.dtype(np.int64)}, "stored in its own type"
    onnx.checker.check_model(half.proto, full_check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "repairs"), [("resnet20", ("equalize", "bias")), ("mobilenetv2", ("equalize",))])
def test_trained_networks_and_their_twins(name: str, repairs: tuple[str, ...], shared: Path, tmp_path: Path) -> None:
    """8 images for the repairs, 128 others for the comparison; 2,000 are in docs/quantize.md."""
    path, data = shared / "models" / f"{name}.onnx", shared / "golden" / "networks" / "calibration_512.npz"
    given = {"data": data, "preprocess": "cifar10", "limit": 8}
    spec = quantkit.PRESETS["cifar10"]
    raw = np.load(data)["x"][-128:]
    mean, std = (np.array(each, np.float32) for each in (spec.mean, spec.std))
    x = ((raw * np.float32(1 / 255) - mean) / std).transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(x, np.float32)
    found = []
    for each in (path, half_of(path, tmp_path)):
        made = quantized(each, repairs, **given)
        found.append((made, decibels(outputs_of(load_model(each), x), outputs_of(Model(each, made.proto, ""), x))))
    (single, theirs), (half, ours) = found
    assert changed(half) == changed(single)
    assert all(half.repairs[repair].gains for repair in repairs if repair != "smooth")
    assert abs(ours - theirs) < TWINS
