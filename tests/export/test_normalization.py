"""The preprocessing that goes to the server: bit for bit what calibration does, for every spec, or refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from PIL import Image

from quantkit.data.pixels import UnreadableError, decode, pixels_of, to_input_array
from quantkit.errors import PreprocessError
from quantkit.export.normalization import pixel_shape, preprocess_model
from quantkit.export.served_model import ServedTensor
from quantkit.preprocess import PRESETS, Preprocess, resolve_spec
from quantkit.values import ModelInput

DTYPES = ["float32", "float16", "float64", "uint8", "int8", "int32", "int64"]
finite = st.floats(-300, 300, width=32).map(float)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Preprocess, ServedTensor]:
    """A resolved spec with the input that it makes; of every layout, order, type, and number of means."""
    channels = draw(st.sampled_from(["rgb", "bgr", "grey"]))
    depth, layout = (1 if channels == "grey" else 3), draw(st.sampled_from(["nchw", "nhwc"]))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    batch = draw(st.sampled_from([-1, 2]))
    dtype = draw(st.sampled_from(DTYPES))
    count = st.sampled_from([1, depth])
    spec = Preprocess(
        resize=draw(st.sampled_from(["exact", "shortest", "letterbox"])),
        crop_fraction=draw(st.sampled_from([1.0, 0.875])),
        interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])),
        size=(height, width),
        channels=channels,
        scale=draw(st.sampled_from([1.0, 1 / 255, 2 / 255]) | st.floats(1e-4, 4)),
        mean=tuple(draw(st.lists(finite, min_size=(n := draw(count)), max_size=n))),
        std=tuple(draw(st.lists(st.floats(0.01, 300), min_size=(n := draw(count)), max_size=n))),
        layout=layout,
    )
    shape = (batch, depth, height, width) if layout == "nchw" else (batch, height, width, depth)
    wanted = ServedTensor("image", dtype, shape)
    return resolve_spec(spec, wanted.as_input()), wanted


def runs(proto: onnx.ModelProto, pixels: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels})[0]


def same_bits(one: Any, other: Any) -> bool:
    return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())


@settings(max_examples=120)
@given(case=cases(), seed=st.integers(0, 99))
def test_the_server_makes_the_bits_that_calibration_makes(case: tuple[Preprocess, ServedTensor], seed: int) -> None:
    spec, wanted = case
    pixels = np.random.default_rng(seed).integers(0, 256, (2, *pixel_shape(spec, wanted)[1:])).astype(np.uint8)
    try:
        own = np.stack([to_input_array(image, spec) for image in pixels])
    except UnreadableError:
        with pytest.raises(PreprocessError, match="do not fit the input's type"):
            preprocess_model(spec, wanted)
        return
    proto = preprocess_model(spec, wanted)
    onnx.checker.check_model(proto, full_check=True)
    assert same_bits(runs(proto, pixels), own)
    assert same_bits(ReferenceEvaluator(proto).run(None, {"pixels": pixels})[0], own)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_pixel_of_every_preset(preset: str, dtype: str) -> None:
    wanted = ServedTensor("image", dtype, (-1, 3, 16, 16))
    spec = resolve_spec(PRESETS[preset], wanted.as_input())
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pixels = np.stack([np.concatenate([np.roll(levels, 7 * k, 0) for k in range(3)], axis=2)])
    own = np.stack([to_input_array(image, spec) for image in pixels])
    assert len(np.unique(own)) > 200
    assert same_bits(runs(preprocess_model(spec, wanted), pixels), own)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("preset", ["imagenet", "imagenet-caffe", "cifar10", "yolo"])
def test_files_of_every_colour_come_out_as_from_the_pipeline(mode: str, preset: str) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (23, 31, 3)).astype(np.uint8)
    stored = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(stored, "TIFF")
    wanted = ServedTensor("image", "float32", (-1, 3, 14, 12))
    spec = resolve_spec(PRESETS[preset], wanted.as_input())
    pixels = pixels_of(stored.getvalue(), spec)
    assert pixels.dtype == np.uint8
    assert pixels.shape == pixel_shape(spec, wanted)[1:]
    assert same_bits(runs(preprocess_model(spec, wanted), pixels[None])[0], decode(stored.getvalue(), spec))


def test_sixteen_bits_are_no_pixels_for_the_server() -> None:
    """They are float32, which the client prepares itself (see the client's test)."""
    stored = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(stored, "PNG")
    spec = resolve_spec(Preprocess(), ModelInput("image", "float32", (None, 1, 8, 8)))
    assert pixels_of(stored.getvalue(), spec).dtype == np.float32


def test_equal_channels_share_a_table() -> None:
    one, three = (
        preprocess_model(resolve_spec(Preprocess(mean=mean), wanted.as_input()), wanted)
        for mean in ((0.5,), (0.5, 0.5, 0.25))
        for wanted in [ServedTensor("image", "float32", (-1, 3, 2, 2))]
    )
    tables = [next(w for w in m.graph.initializer if w.name == "values") for m in (one, three)]
    assert [list(t.dims) for t in tables] == [[256], [768]]


def test_a_type_that_numpy_does_not_have_is_refused() -> None:
    wanted = ServedTensor("image", "bfloat16", (-1, 3, 2, 2))
    with pytest.raises(PreprocessError, match="bfloat16, which preprocessing cannot produce"):
        preprocess_model(resolve_spec(Preprocess(), wanted.as_input()), wanted)


def test_the_same_spec_makes_the_same_bytes(tmp_path: Path) -> None:
    wanted = ServedTensor("image", "float16", (-1, 3, 4, 4))
    spec = resolve_spec(PRESETS["imagenet"], wanted.as_input())
    assert preprocess_model(spec, wanted) == preprocess_model(spec, wanted)
