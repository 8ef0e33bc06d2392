"""The preprocessing spec: read strictly, filled in from the network's input, refused where the two clash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from quantkit.data.preprocess_choice import choose_spec
from quantkit.errors import PreprocessError
from quantkit.graph import Model, load_model
from quantkit.preprocess import (
    METADATA_KEY,
    PRESETS,
    Preprocess,
    load_preprocess,
    metadata_preprocess,
    parse_preprocess,
    resolve_spec,
)
from quantkit.values import ModelInput

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
sides = st.integers(1, 65536)
specs = st.builds(
    Preprocess,
    resize=st.sampled_from(["exact", "shortest", "letterbox", "none"]),
    size=st.none() | st.tuples(sides, sides),
    crop_fraction=st.floats(0.01, 1.0),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    pad=st.integers(0, 255),
    channels=st.sampled_from([None, "rgb", "bgr", "grey"]),
    scale=positive,
    mean=st.lists(finite, min_size=1, max_size=3).map(tuple),
    std=st.lists(positive, min_size=1, max_size=3).map(tuple),
    layout=st.sampled_from([None, "nchw", "nhwc"]),
    dtype=st.sampled_from([None, "float32", "float16", "uint8"]),
)


def toml(fields: dict[str, Any]) -> str:
    """JSON's strings, numbers and arrays are TOML's; an absent key stands for None."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items() if value is not None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specs")


@given(spec=specs)
def test_a_spec_reads_back_from_toml(folder: Path, spec: Preprocess) -> None:
    path = folder / "spec.toml"
    path.write_text(toml(spec.model_dump(mode="json")), encoding="utf-8")
    assert load_preprocess(path) == load_preprocess(str(path)) == spec


@given(spec=specs)
def test_a_spec_reads_back_from_a_models_metadata(spec: Preprocess) -> None:
    assert metadata_preprocess({METADATA_KEY: spec.model_dump_json()}) == spec


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_name_and_as_the_base_of_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(f'size = [48, 64]\npreset = "{name}"\npad = 3\n', encoding="utf-8")
    assert load_preprocess(name) is PRESETS[name]
    assert load_preprocess(path) == PRESETS[name].model_copy(update={"size": (48, 64), "pad": 3})


def test_presets_hold_the_published_figures() -> None:
    imagenet, caffe = PRESETS["imagenet"], PRESETS["imagenet-caffe"]
    assert (imagenet.mean, imagenet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (imagenet.resize, imagenet.crop_fraction, imagenet.scale) == ("shortest", 224 / 256, 1 / 255)
    assert (caffe.channels, caffe.mean, caffe.std) == ("bgr", (103.939, 116.779, 123.68), (1.0,))
    assert (PRESETS["yolo"].resize, PRESETS["yolo"].pad, PRESETS["yolo"].scale) == ("letterbox", 114, 1 / 255)
    assert PRESETS["raw"] == Preprocess()


WRONG_KEYS = [
    ("widht = 3", "widht"),
    ('resize = "stretch"', "resize"),
    ('interpolation = "cubic"', "interpolation"),
    ('channels = "RGB"', "channels"),
    ('layout = "chw"', "layout"),
    ("size = 32", "size"),
    ("size = [32]", "size"),
    ("size = [32, 0]", "size"),
    ("size = [32.0, 32]", "size"),
    ('size = "32"', "size"),
    ("pad = 256", "pad"),
    ("pad = true", "pad"),
    ("crop_fraction = 0.0", "crop_fraction"),
    ("crop_fraction = 1.5", "crop_fraction"),
    ("scale = 0", "scale"),
    ("scale = inf", "scale"),
    ('scale = "1/255"', "scale"),
    ("mean = 0.5", "mean"),
    ("mean = [0.5, nan]", "mean"),
    ("std = [1, 0]", "std"),
    ("std = [1, -1]", "std"),
    ("dtype = 32", "dtype"),
    ('preset = "imagnet"', "imagnet"),
    ('preset = ["imagenet"]', "preset"),
    ("preset = 1", "preset"),
]


@pytest.mark.parametrize(("text", "key"), WRONG_KEYS)
def test_a_wrong_key_or_value_is_named_with_its_file(text: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(f"scale = 1.0\n{text}\n" if "scale" not in text else text, encoding="utf-8")
    with pytest.raises(PreprocessError) as caught:
        load_preprocess(path)
    assert str(path) in caught.value.problem
    assert key in caught.value.problem


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"scale = 1.0\nsize = [32,\npad 3", "line 3"), (b"scale = 1\nscale = 2\n", "line 2"), (b'x = "\xff"', "UTF-8")],
)
def test_what_is_no_toml_is_named_with_file_and_line(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(content)
    with pytest.raises(PreprocessError) as caught:
        load_preprocess(path)
    assert str(path) in caught.value.problem
    assert told.lower() in caught.value.problem.lower()


def test_a_missing_file_a_folder_and_an_unknown_preset_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for path in (tmp_path / "absent.toml", tmp_path / "folder.toml"):
        with pytest.raises(PreprocessError, match=path.name):
            load_preprocess(path)
    with pytest.raises(PreprocessError, match="imagnet") as caught:
        load_preprocess("imagnet")
    assert all(name in caught.value.remedy for name in PRESETS)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"unit"', "null", '{"sise": 3}', '{"scale": NaN}'])
def test_metadata_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(PreprocessError, match=METADATA_KEY):
        metadata_preprocess({METADATA_KEY: text})


def test_metadata_of_an_ultralytics_export_is_letterbox_at_its_size() -> None:
    export = {"author": "Ultralytics", "task": "detect", "imgsz": "[384, 640]"}
    assert metadata_preprocess(export) == PRESETS["yolo"].model_copy(update={"size": (384, 640)})
    assert metadata_preprocess({**export, "imgsz": "[640]"}) == PRESETS["yolo"].model_copy(update={"size": (640, 640)})
    assert metadata_preprocess({k: v for k, v in export.items() if k != "imgsz"}) == PRESETS["yolo"]
    cropped = PRESETS["unit"].model_copy(update={"size": (384, 640), "resize": "shortest"})
    assert metadata_preprocess({**export, "task": "classify"}) == cropped
    assert metadata_preprocess({**export, "task": "dance"}) is None
    assert metadata_preprocess({**export, METADATA_KEY: '{"preset": "unit"}'}) == PRESETS["unit"]
    assert metadata_preprocess({}) is None


def image(shape: tuple[int | str | None, ...], dtype: str = "float32") -> ModelInput:
    return ModelInput("image", dtype, shape)


@given(
    depth=st.sampled_from([1, 3]),
    height=st.integers(4, 512),
    width=st.integers(4, 512),
    nhwc=st.booleans(),
    batch=st.sampled_from(["N", None, 1, 8]),
    dtype=st.sampled_from(["float32", "float16", "uint8"]),
)
def test_size_channels_layout_and_dtype_come_from_the_input(
    depth: int, height: int, width: int, nhwc: bool, batch: Any, dtype: str
) -> None:
    wanted = image((batch, height, width, depth) if nhwc else (batch, depth, height, width), dtype)
    filled = resolve_spec(Preprocess(), wanted)
    assert filled.size == (height, width)
    assert filled.channels == ("grey" if depth == 1 else "rgb")
    assert filled.layout == ("nhwc" if nhwc else "nchw")
    assert filled.dtype == dtype
    assert resolve_spec(filled, wanted) == filled
    assert filled.model_copy(update=dict.fromkeys(("size", "channels", "layout", "dtype"))) == Preprocess()


def test_what_the_spec_says_is_kept() -> None:
    spec = Preprocess(size=(32, 48), channels="bgr", layout="nhwc", dtype="float32")
    assert resolve_spec(spec, image(("N", "H", "W", None))) == spec
    assert resolve_spec(Preprocess(channels="grey"), image(("N", "C", 8, 8))).channels == "grey"
    assert resolve_spec(Preprocess(layout="nhwc"), image((1, 3, 3, 3))).layout == "nhwc"
    assert resolve_spec(Preprocess(), image((1, 3, 3, 3))).layout == "nchw"


CLASHES = [
    (Preprocess(), ("N", 3, "H", "W"), "no fixed height and width"),
    (Preprocess(), ("N", 3, 32, None), "no fixed height and width"),
    (Preprocess(size=(16, 32)), ("N", 3, 32, 32), "height is 16"),
    (Preprocess(size=(32, 16)), ("N", 3, 32, "W"), None),
    (Preprocess(size=(32, 16)), ("N", 3, "H", 32), "width is 16"),
    (Preprocess(channels="grey"), ("N", 3, 32, 32), "3 channels"),
    (Preprocess(channels="bgr"), ("N", 1, 32, 32), "1 channels"),
    (Preprocess(), ("N", 4, 32, 32), "4 channels"),
    (Preprocess(layout="nhwc"), ("N", 3, 32, 32), "32 channels"),
    (Preprocess(mean=(0.1, 0.2)), ("N", 3, 32, 32), "mean has 2 values"),
    (Preprocess(std=(1.0, 2.0, 3.0)), ("N", 1, 32, 32), "std has 3 values"),
    (Preprocess(dtype="float16"), ("N", 3, 32, 32), "float16"),
    (Preprocess(), ("N", 3, 32), "3 dimensions"),
    (Preprocess(), (), "0 dimensions"),
]


@pytest.mark.parametrize(("spec", "shape", "told"), CLASHES)
def test_clashes_are_refused_and_name_the_input(spec: Preprocess, shape: Any, told: str | None) -> None:
    if told is None:
        assert resolve_spec(spec, image(shape)).size == spec.size
        return
    with pytest.raises(PreprocessError, match=told) as caught:
        resolve_spec(spec, image(shape))
    assert image(shape).describe() in caught.value.problem


def test_describe_is_one_line_for_people() -> None:
    cifar = resolve_spec(PRESETS["cifar10"], image(("N", 3, 32, 32)))
    assert cifar.describe() == (
        "exact 32×32 bilinear, rgb, ×1/255, mean 0.4914/0.4822/0.4465, std 0.247/0.2435/0.2616, nchw float32"
    )
    imagenet = PRESETS["imagenet"].model_copy(update={"size": (224, 224)})
    assert imagenet.describe().startswith("shortest 224×224 bilinear crop 0.875, rgb, ×1/255, mean 0.485/")
    assert Preprocess().describe() == "exact bilinear, as the model"
    assert Preprocess(scale=2.0, interpolation="box").describe() == "exact box, ×2, as the model"


@given(spec=specs)
def test_a_description_is_one_line(spec: Preprocess) -> None:
    assert spec.describe().splitlines() == [spec.describe()]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 8, 8]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {METADATA_KEY: '{"preset": "imagenet"}'})
    (tmp_path / "net").mkdir()
    onnx.save(proto, tmp_path / "net" / "net.onnx")
    return load_model(tmp_path / "net" / "net.onnx")


def test_the_spec_is_what_was_asked_else_beside_the_model_else_its_metadata_else_unit(
    model: Model, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    assert choose_spec(Preprocess(pad=7), model, images).spec == Preprocess(pad=7)
    assert choose_spec("yolo", model, images).spec is PRESETS["yolo"]
    assert choose_spec(None, model, images).spec == PRESETS["imagenet"]
    (model.path.parent / "preprocess.toml").write_text('preset = "cifar10"', encoding="utf-8")
    assert choose_spec(None, model, images).spec == PRESETS["cifar10"]
    (model.path.parent / "preprocess.toml").unlink()
    del model.proto.metadata_props[:]
    fallback = choose_spec(None, model, images)
    assert fallback.spec is PRESETS["unit"]
    assert "--preprocess" in str(fallback.warning)


def test_arrays_batches_and_streams_are_fed_raw_unless_asked(model: Model, tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    np.savez(tmp_path / "batches" / "0.npz", x=np.zeros(1))
    for data in (tmp_path / "x.npy", str(tmp_path / "x.npz"), tmp_path / "batches", "module:function", [1], list):
        assert choose_spec(None, model, data).spec is PRESETS["raw"]
    assert choose_spec("unit", model, tmp_path / "x.npy").spec is PRESETS["unit"]


@given(fields=st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=4)))
def test_any_document_is_a_spec_or_a_preprocess_error(fields: dict[str, Any]) -> None:
    try:
        told = parse_preprocess(fields, "here").describe()
    except PreprocessError as error:
        told = error.problem
    assert told.startswith("here: ") or fields.keys() <= Preprocess.model_fields.keys() | {"preset"}


@pytest.mark.parametrize("imgsz", ["[" * 100_000, "[٣, 640]", "imgsz", "", "[640, 640, 640, 640]"])
def test_a_foreign_image_size_is_a_size_or_none(imgsz: str) -> None:
    """Digits of other scripts are none; two sides are enough."""
    found = metadata_preprocess({"author": "Ultralytics", "task": "detect", "imgsz": imgsz})
    assert found is not None
    assert found.size in {None, (640, 640)}


@pytest.mark.parametrize("imgsz", ["[0, 0]", "[999999, 640]"])
def test_an_impossible_image_size_is_refused(imgsz: str) -> None:
    """A network of that size cannot be fed."""
    with pytest.raises(PreprocessError, match="imgsz"):
        metadata_preprocess({"author": "Ultralytics", "task": "detect", "imgsz": imgsz})


def test_types_have_the_words_of_toml() -> None:
    with pytest.raises(PreprocessError, match="mean: input should be a valid array"):
        parse_preprocess({"mean": 0.4}, "spec.toml")
