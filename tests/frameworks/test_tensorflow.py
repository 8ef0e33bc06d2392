"""from-tf and from-tflite with TensorFlow itself; skipped, visibly, where it is not installed."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install '.[tensorflow]'")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: pip install '.[tensorflow]'")

from quantkit.cli import from_framework
from quantkit.errors import ModelError, UsageError
from quantkit.evaluation.evaluate import evaluate
from quantkit.frameworks.convert import from_tf, from_tflite
from quantkit.frameworks.exported import Shape
from quantkit.frameworks.tensorflow import TfOptions
from quantkit.frameworks.tflite import TfliteOptions
from quantkit.project.run import run
from quantkit.project.settings import Settings

from .digits import SPEC, digits, shifted

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def network() -> Any:
    """A small convolutional network, trained for a few seconds on 200 digits."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.ReLU(6.0),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )
    images, labels = digits("images")
    generator = np.random.default_rng(0)
    model.compile(tf.keras.optimizers.Adam(3e-3), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(30):
        model.fit(shifted(images, generator)[..., None], labels, batch_size=40, verbose=0)
    return model


@pytest.fixture(scope="module")
def files(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as SavedModel, .keras, .h5 and TFLite: float, whole numbers inside, whole numbers at its ends too."""
    folder: Path = tmp_path_factory.mktemp("files")
    network.export(folder / "saved", verbose=False)
    network.save(folder / "net.keras")
    network.save(folder / "net.h5")
    images = digits("images")[0][..., None]

    def lite(name: str, **settings: Any) -> None:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
        for key, value in settings.items():
            setattr(converter, key, value)
        (folder / name).write_bytes(converter.convert())

    int8 = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ([image[None]] for image in images[:100]),
    }
    lite("float.tflite")
    lite("int8.tflite", **int8)
    lite("uint8.tflite", **int8, inference_input_type=tf.uint8, inference_output_type=tf.uint8)
    return folder


SOURCES = {"saved": "output_0", "net.keras": "logits", "net.h5": "logits"}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("nchw", [False, True])
def test_the_model_computes_what_tensorflow_computes(
    name: str, nchw: bool, network: Any, files: Path, tmp_path: Path
) -> None:
    made = from_tf(files / name, tmp_path / "m.onnx", options=TfOptions(inputs_as_nchw=nchw))
    expected_shape = "[batch,1,16,16]" if nchw else "[batch,16,16,1]"
    assert made.inputs[0].describe() == f"image float32 {expected_shape}"
    assert made.outputs == (SOURCES[name],)
    assert [c.batch for c in made.compared] == [1, 3]
    assert made.unchecked == ""
    assert bool(made.notes) is not nchw
    images = np.random.default_rng(1).standard_normal((5, 16, 16, 1)).astype(np.float32)
    given = images.transpose(0, 3, 1, 2) if nchw else images
    found = onnxruntime.InferenceSession(str(made.path)).run(None, {"image": np.ascontiguousarray(given)})[0]
    np.testing.assert_allclose(found, network(images, training=False).numpy(), atol=1e-4)


def test_tflite_keeps_names_batch_and_numbers(network: Any, files: Path, tmp_path: Path) -> None:
    made = from_tflite(files / "float.tflite", tmp_path / "m.onnx")
    assert made.inputs[0].describe() == "image float32 [batch,16,16,1]"
    assert made.outputs == ("output_0",)
    assert "TFLite" in made.source or "LiteRT" in made.source
    assert max(c.share for c in made.compared) < 1e-5


@pytest.mark.parametrize("name", ["int8.tflite", "uint8.tflite"])
def test_a_quantized_tflite_model_is_refused_or_made_float(name: str, files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is quantized") as refused:
        from_tflite(files / name, tmp_path / "m.onnx")
    assert "--dequantize" in refused.value.remedy
    assert not list(tmp_path.iterdir())
    made = from_tflite(files / name, tmp_path / "m.onnx", options=TfliteOptions(dequantize=True))
    assert made.inputs[0].describe() == "image float32 [batch,16,16,1]"
    operators = {node.op_type for node in onnx.load(made.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"}.isdisjoint(operators)
    assert 0 < max(c.share for c in made.compared) < 0.1, "TFLite's own rounding, and not more"
    result = evaluate(made.path, SPEC.parent / "test", preprocess=SPEC)
    assert result.reference.metrics["top1"] >= 0.9


@pytest.mark.parametrize("name", ["saved", "float.tflite", "uint8.tflite"])
def test_the_same_file_gives_the_same_bytes_without_paths(name: str, files: Path, tmp_path: Path) -> None:
    run: Callable[..., Any] = from_tflite if name.endswith("tflite") else from_tf
    options = {"options": TfliteOptions(dequantize=True)} if name == "uint8.tflite" else {}
    paths = [run(files / name, tmp_path / f"{i}.onnx", **options).path for i in range(2)]
    content = paths[0].read_bytes()
    assert content == paths[1].read_bytes()
    assert b"__" not in content.replace(b"__main__", b"")
    for word in (str(files), str(tmp_path), "site-packages"):
        assert word.encode() not in content


def test_open_axes_need_a_shape(tmp_path: Path) -> None:
    inputs = tf.keras.Input((None, None, 3), name="image")
    scores = tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.Conv2D(4, 3)(inputs))
    tf.keras.Model(inputs, scores).save(tmp_path / "open.keras")
    with pytest.raises(UsageError, match="axes of unknown size") as refused:
        from_tf(tmp_path / "open.keras", tmp_path / "m.onnx")
    assert "--shape image=1,224,224,3" in refused.value.remedy
    with pytest.raises(UsageError, match="does not fit"):
        from_tf(tmp_path / "open.keras", tmp_path / "m.onnx", shapes={"image": Shape((1, 32, 32, 1))})
    made = from_tf(tmp_path / "open.keras", tmp_path / "m.onnx", shapes={"image": (1, 32, 24, 3)})
    assert made.inputs[0].shape == ("batch", 32, 24, 3)


def test_what_is_refused(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    for path, problem in (
        (tmp_path, "is not a SavedModel"),
        (tmp_path / "none", "no such file"),
        (files / "float.tflite", "is a TFLite model"),
    ):
        with pytest.raises(ModelError, match=problem):
            from_tf(path, output)
    with pytest.raises(UsageError, match=r"no signature 'train': .*serving_default"):
        from_tf(files / "saved", output, options=TfOptions(signature="train"))
    (tmp_path / "cut.tflite").write_bytes((files / "float.tflite").read_bytes()[:200])
    (tmp_path / "other.tflite").write_bytes(b"something else")
    for name, problem in (("cut.tflite", "damaged|cannot convert"), ("other.tflite", "is not a TFLite model")):
        with pytest.raises(ModelError, match=problem):
            from_tflite(tmp_path / name, output)
    assert not output.exists()


def test_the_commands(files: Path, tmp_path: Path) -> None:
    for command, source in ((from_framework.from_tf, "saved"), (from_framework.from_tflite, "float.tflite")):
        output = str(tmp_path / f"{source}.onnx")
        done = CliRunner().invoke(command, [str(files / source), "-o", output, "--fixed-batch", "4", "--json"])
        assert done.exception is None, done.exception
        document = json.loads(done.output)
        assert document["inputs"][0]["shape"] == [4, 16, 16, 1]
        assert document["files"] == [output]


def test_a_tflite_network_goes_in_and_comes_out_as_int8(network: Any, files: Path, tmp_path: Path) -> None:
    images, labels = digits("test")
    batch = images[..., None]
    made = from_tflite(files / "float.tflite", tmp_path / "digits.onnx")
    done = run(Settings(model=str(made.path), data=str(SPEC.parent / "images"), preprocess=str(SPEC), gpu=False,
                        evaluate={"data": str(SPEC.parent / "test")}))  # fmt: skip
    before = float((network(batch, training=False).numpy().argmax(1) == labels).mean())
    float_share, int8_share = (model.metrics["top1"] for model in done.evaluation.models[:2])
    summary = f"TensorFlow {before:.1%}, ONNX {float_share:.1%}, INT8 {int8_share:.1%}"
    assert float_share == before >= 0.95, summary
    assert int8_share >= float_share - 0.015, summary
    assert f"{int8_share:.2%}".replace("%", " %") in done.files["report.html"].read_text(encoding="utf-8")
