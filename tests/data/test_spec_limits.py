"""What a spec may do to pixels: they fit into memory, and into the type of the input, where they still differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from quantkit.data import DataOptions, open_data
from quantkit.data.arrays import image_input
from quantkit.data.preprocess_choice import choose_spec
from quantkit.data.spec_limits import FEWEST_LEVELS, apply_spec
from quantkit.errors import PreprocessError, UnreadableError
from quantkit.graph import Model, load_model
from quantkit.preprocess import PIXEL_TYPES, PRESETS, Preprocess, load_preprocess, metadata_preprocess
from quantkit.values import ModelInput

INTEGERS = sorted(kind for kind in PIXEL_TYPES if "int" in kind)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def wanted(dtype: str, shape: tuple[Any, ...] = (None, 6, 5, 3)) -> ModelInput:
    return ModelInput("image", dtype, shape)


@pytest.fixture(name="images", scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(PIXELS).save(folder / "a.png")
    return folder


def network(folder: Path, kind: int, *shape: Any) -> Model:
    value = helper.make_tensor_value_info("image", kind, shape)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["y"], to=TensorProto.FLOAT)], "g", [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return load_model(folder / "m.onnx")


@pytest.mark.parametrize("dtype", [kind for kind in INTEGERS if kind != "int8"])
@pytest.mark.parametrize("first", [True, False], ids=["nchw", "nhwc"])
def test_an_input_of_integers_gets_the_pixels_by_default(dtype: str, first: bool, images: Path, tmp_path: Path) -> None:
    shape = ("N", 3, 6, 5) if first else ("N", 6, 5, 3)
    model = network(tmp_path, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), *shape)
    choice = choose_spec(None, model, images)
    feed, _ = open_data(images, model.inputs, choice.spec, DataOptions())
    (portion,) = feed.portions()
    assert portion.batch["image"].dtype == dtype
    assert np.array_equal(portion.batch["image"][0], PIXELS.transpose(2, 0, 1) if first else PIXELS)
    assert choice.warning is not None, "colours, cropping and resizing remain a guess"
    assert "pixels 0 … 255" in choice.warning


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("preset", ["imagenet", "cifar10", "unit", "yolo"])
def test_values_for_float_are_refused_for_integers_and_the_preprocessing_is_blamed(
    preset: str, dtype: str, images: Path
) -> None:
    for source in (images, images / "a.png"):
        with pytest.raises(PreprocessError, match=r"the preprocessing .×1/255.* (leaves|do not fit)") as caught:
            open_data(source, (wanted(dtype),), PRESETS[preset], DataOptions())
        assert ("mean = [128]" if dtype == "int8" else "--preprocess raw") in caught.value.remedy


def test_the_remedy_for_int8_works(images: Path) -> None:
    with pytest.raises(PreprocessError, match="do not fit the input's type int8"):
        apply_spec(PRESETS["raw"], wanted("int8"))
    feed, _ = open_data(images, (wanted("int8"),), Preprocess(mean=(128,)), DataOptions())
    (portion,) = feed.portions()
    assert np.array_equal(portion.batch["image"][0], PIXELS.astype(int) - 128)


@given(
    dtype=st.sampled_from(sorted(PIXEL_TYPES)),
    scale=st.floats(1e-300, 1e300),
    mean=st.floats(-1e300, 1e300),
    std=st.floats(1e-300, 1e300),
)
def test_a_spec_is_applied_only_where_pixels_still_differ(dtype: str, scale: float, mean: float, std: float) -> None:
    spec = Preprocess(scale=scale, mean=(mean,), std=(std,))
    try:
        applied = apply_spec(spec, wanted(dtype))
    except PreprocessError:
        return
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = image_input(ramp, applied.model_copy(update={"size": (16, 16), "channels": "grey"}))
    assert len(np.unique(found)) >= FEWEST_LEVELS
    assert np.isfinite(found.astype(np.float64)).all()


@pytest.mark.parametrize("dtype", ["bool", "bfloat16", "complex64", "type 8"])
def test_other_types_are_no_images(dtype: str) -> None:
    with pytest.raises(PreprocessError, match=dtype):
        apply_spec(PRESETS["raw"], wanted(dtype))


@pytest.mark.parametrize("shape", [(None, 4, 6, 5), (None, 6, 5, 4), (None, 2, 6, 5)])
def test_a_network_of_two_or_four_channels_is_referred_to_arrays(shape: tuple[Any, ...]) -> None:
    with pytest.raises(PreprocessError, match="channels") as caught:
        apply_spec(PRESETS["raw"], wanted("uint8", shape))
    assert "feed arrays" in caught.value.remedy


HUGE = [
    ("crop_fraction = 0.0001", (224, 224)),
    ("crop_fraction = 0.01", (224, 224)),
    ("crop_fraction = 1e-320", (224, 224)),
    ("size = [65536, 65536]", ("H", "W")),
    ("", (65536, 65536)),
    ("", (1 << 40, 8)),
]


@pytest.mark.parametrize(("line", "sides"), HUGE)
def test_a_spec_that_makes_images_larger_than_memory_is_refused(
    line: str, sides: tuple[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(f'preset = "imagenet"\n{line}\n', encoding="utf-8")
    with pytest.raises(PreprocessError) as caught:
        apply_spec(load_preprocess(path), wanted("float32", (None, 3, *sides)))
    assert (line.split(" ")[0] if "crop" in line else "pixels") in caught.value.problem


@pytest.mark.parametrize("sizes", ["[0, 640]", "[999999, 640]", "9" * 5000, "[²]"])
def test_metadata_with_an_absurd_size_is_refused_or_holds_none(sizes: str) -> None:
    metadata = {"author": "Ultralytics", "task": "detect", "imgsz": sizes}
    if sizes == "[²]":
        assert metadata_preprocess(metadata) == PRESETS["yolo"]
        return
    with pytest.raises(PreprocessError, match="imgsz"):
        metadata_preprocess(metadata)


def test_floats_for_an_input_of_integers_are_whole_after_preprocessing() -> None:
    spec = apply_spec(Preprocess(scale=255.0), wanted("int32"))
    fractions = PIXELS.astype(np.float32) / 255
    assert np.array_equal(image_input(fractions, spec), PIXELS)
    raw = apply_spec(Preprocess(), wanted("uint8"))
    assert np.array_equal(image_input(PIXELS.astype(np.float32), raw), PIXELS)
    with pytest.raises(UnreadableError, match="fractions, not uint8"):
        image_input(fractions, raw)
    with pytest.raises(UnreadableError, match="not numbers"):
        image_input(PIXELS.astype(str), raw)
