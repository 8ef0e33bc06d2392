"""The preprocessing spec: how an image becomes the network's input. One frozen value for calibration and evaluation.

    value = (pixel·scale − mean)/std        per channel, pixels 0 … 255 (16-bit images are brought to that range)

    resize       "exact"      stretch to size                            (torchvision Resize((h, w)))
                 "shortest"   shortest side to size/crop_fraction, then crop the centre (torchvision)
                 "letterbox"  fit inside size, keep the aspect ratio, pad around (the YOLO family)
                 "none"       images already have the size
    channels     "rgb", "bgr", "grey"
    layout       "nchw", "nhwc"

`size`, `channels`, `layout` and `dtype` are taken from the model's input if the spec does not set them.
A spec is read from TOML; `preset = "imagenet"` in a file starts from a preset, and the other keys override it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from quantkit.document import LONGEST, DocumentType, iter_faults
from quantkit.errors import PreprocessError
from quantkit.frozen_record import FrozenRecord
from quantkit.paths import exists
from quantkit.values import ModelInput
from quantkit.view import quoted, shorten_middle

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=65536)]


class Preprocess(FrozenRecord):
    """The preprocessing of an image; see the module for the meaning of every field."""

    resize: Literal["exact", "shortest", "letterbox", "none"] = "exact"
    size: tuple[Side, Side] | None = None
    """Height and width in pixels."""
    crop_fraction: Annotated[float, Field(ge=0.01, le=1)] = 1.0
    """`shortest`: the shortest side becomes round(size/crop_fraction) before the crop; 0.875 is 224 of 256."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    pad: Annotated[int, Field(ge=0, le=255)] = 114
    """`letterbox`: the pixel value around the image."""
    channels: Literal["rgb", "bgr", "grey"] | None = None
    scale: Positive = 1.0
    mean: tuple[Finite, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    layout: Literal["nchw", "nhwc"] | None = None
    dtype: str | None = None

    def describe(self) -> str:
        """Return one line of text, for example `exact 32×32 bilinear, rgb, ×1/255, mean …, std …, nchw float32`."""
        size = f" {self.size[0]}×{self.size[1]}" if self.size else ""
        steps = [f"{self.resize}{size} {self.interpolation}" if self.resize != "none" else f"size{size}"]
        if self.resize == "shortest" and self.crop_fraction != 1.0:
            steps[0] += f" crop {self.crop_fraction:g}"
        if self.channels:
            steps.append(self.channels)
        if arithmetic := self.arithmetic(""):
            steps.append(arithmetic)
        steps.append(" ".join(part for part in (self.layout, self.dtype) if part) or "as the model")
        return ", ".join(steps)

    def arithmetic(self, nothing: str = "pixels 0 … 255") -> str:
        """Return what is computed with pixels, for example `×1/255, mean 0.5`; `nothing` if they stay."""
        steps = []
        if self.scale != 1.0:
            inverse = min(1.0 / self.scale, sys.float_info.max)
            nice = abs(inverse - round(inverse)) < 1e-9 * inverse
            steps.append(f"×1/{round(inverse)}" if nice and 1 < inverse < 1e6 else f"×{self.scale:g}")
        if any(self.mean):
            steps.append("mean " + "/".join(f"{m:g}" for m in self.mean))
        if set(self.std) != {1.0}:
            steps.append("std " + "/".join(f"{s:g}" for s in self.std))
        return ", ".join(steps) or nothing


PRESETS: Mapping[str, Preprocess] = {
    "imagenet": Preprocess(
        resize="shortest",
        crop_fraction=0.875,
        channels="rgb",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "imagenet-caffe": Preprocess(
        resize="shortest", crop_fraction=0.875, channels="bgr", mean=(103.939, 116.779, 123.68)
    ),
    "cifar10": Preprocess(
        channels="rgb",
        scale=1 / 255,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "yolo": Preprocess(resize="letterbox", channels="rgb", scale=1 / 255),
    "unit": Preprocess(scale=1 / 255),
    "raw": Preprocess(),
}
"""imagenet: torchvision. imagenet-caffe: Keras, Caffe. yolo: Ultralytics. unit: pixels/255. raw: unchanged."""


def parse_preprocess(document: Any, where: str) -> Preprocess:
    """Return the spec in a parsed TOML or JSON document; `where` names it in errors. PreprocessError."""
    if not isinstance(document, Mapping):
        raise PreprocessError(f"{where}: not a table of keys", remedy='for example {"preset": "imagenet"}')
    fields = dict(document)
    base = fields.pop("preset", "raw")
    if not isinstance(base, str) or base not in PRESETS:
        raise PreprocessError(f"{where}: unknown preset {quoted(base)}", remedy=f"use one of {', '.join(PRESETS)}")
    merged = PRESETS[base].model_dump(exclude_unset=True) | fields
    try:
        return Preprocess.model_validate({key: as_field(value) for key, value in merged.items()})
    except ValidationError as error:
        unknown = any(e["type"] == "extra_forbidden" for e in error.errors())
        remedy = f"the keys are {', '.join(Preprocess.model_fields)}" if unknown else "correct the value"
        text = shorten_middle("; ".join(dict.fromkeys(iter_faults(error))), LONGEST)
        raise PreprocessError(f"{where}: {text}", remedy=remedy) from None


def as_field(value: Any) -> Any:
    """Return a TOML value as that of a field: arrays become tuples."""
    return tuple(value) if isinstance(value, list) else value


def load_preprocess(spec: str | Path) -> Preprocess:
    """Return the spec of a preset or of a TOML file. PreprocessError names file and key, or the line."""
    text = str(spec)
    if text in PRESETS:
        return PRESETS[text]
    path = Path(text)
    if path.suffix != ".toml" and not exists(path):
        raise PreprocessError(
            f"unknown preset {text!r}",
            remedy=f"use one of {', '.join(PRESETS)}, or the path of a .toml file",
        )
    return parse_preprocess(SPEC_FILE.read(path), str(path))


METADATA_KEY = "quantkit.preprocess"
SPEC = DocumentType[Preprocess](Preprocess, "a preprocessing spec", PreprocessError, "pass --preprocess")
SPEC_FILE = DocumentType[dict[str, Any]](
    dict[str, Any], "a preprocessing spec", PreprocessError, "fix the file", form="TOML"
)
PIXEL_TYPES = frozenset(
    {"float16", "float32", "float64", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
)
"""Types of inputs that images can be converted to."""


ULTRALYTICS_PRESETS: Mapping[str, Mapping[str, Any]] = {
    **{task: {"preset": "yolo"} for task in ("detect", "segment", "pose", "obb", "semantic")},
    "classify": {"preset": "unit", "resize": "shortest"},
}
"""Preprocessing of an Ultralytics export by its task, as in its own validation."""


def metadata_preprocess(metadata: Mapping[str, str]) -> Preprocess | None:
    """Return the spec in a model's metadata: the key `quantkit.preprocess` (JSON), or that of an Ultralytics export."""
    if METADATA_KEY in metadata:
        where = f"the model's metadata {METADATA_KEY!r}"
        return parse_preprocess(SPEC.parse_untyped(metadata[METADATA_KEY], where), where)
    preset = ULTRALYTICS_PRESETS.get(metadata.get("task", "")) if is_ultralytics(metadata) else None
    if preset is not None:
        sides = re.findall("[0-9]{1,6}", metadata.get("imgsz", ""))[:2]
        size = {"size": [int(sides[0]), int(sides[-1])]} if sides else {}
        return parse_preprocess({**preset, **size}, "the model's metadata 'imgsz'")
    return None


def is_ultralytics(metadata: Mapping[str, str]) -> bool:
    """Return True for the metadata of an Ultralytics export, also if the author's name was removed."""
    return "task" in metadata and (metadata.get("author") == "Ultralytics" or {"stride", "names"} <= set(metadata))


FEED_ARRAYS = "feed arrays: --data batches/ with .npz files, or --data module:callable"


def resolve_spec(spec: Preprocess, model_input: ModelInput) -> Preprocess:
    """Return `spec` with size, channels, layout and dtype of an image input. PreprocessError where they contradict."""
    shape, where = model_input.shape, f"input {model_input.describe()}"
    if len(shape) != 4:
        raise PreprocessError(
            f"{where} is not an image: it has {len(shape)} dimensions, not 4",
            remedy=FEED_ARRAYS,
        )
    layout = spec.layout or infer_layout(shape)
    depth, height, width = (shape[1], shape[2], shape[3]) if layout == "nchw" else (shape[3], shape[1], shape[2])
    channels = spec.channels or ("grey" if depth == 1 else "rgb")
    planes = 1 if channels == "grey" else 3
    if isinstance(depth, int) and depth != planes:
        raise PreprocessError(
            f"{where} has {depth} channels in layout {layout}, but the spec yields {planes} ({channels})",
            remedy="set channels and layout in the preprocessing spec"
            if {1, 3} & {shape[1], shape[3]}
            else FEED_ARRAYS,
        )
    fixed = (height, width)
    size = spec.size
    if size is None:
        if not (isinstance(height, int) and isinstance(width, int)):
            raise PreprocessError(
                f"{where} has no fixed height and width",
                remedy='write size = [height, width] and preset = "…" in a .toml file, and pass it with --preprocess',
            )
        size = (height, width)
    for given, wanted, name in zip(size, fixed, ("height", "width"), strict=True):
        if isinstance(wanted, int) and wanted != given:
            raise PreprocessError(
                f"the spec's {name} is {given}, but {where} needs {wanted}",
                remedy="remove size from the spec, or correct it",
            )
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (1, planes):
            raise PreprocessError(
                f"{name} has {len(values)} values, but {where} has {planes} channels",
                remedy=f"give {name} one value, or one for each channel",
            )
    if spec.dtype is not None and spec.dtype != model_input.dtype:
        raise PreprocessError(
            f"the spec's dtype is {spec.dtype}, but {where} needs {model_input.dtype}",
            remedy="remove dtype from the spec",
        )
    filled = {"size": size, "layout": layout, "channels": channels, "dtype": model_input.dtype}
    return spec.model_copy(update=filled)


def infer_layout(shape: tuple[int | str | None, ...]) -> Literal["nchw", "nhwc"]:
    """Return the layout of a 4-D image input by its dimension of 1 or 3 channels; nchw if that is ambiguous."""
    return "nhwc" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "nchw"
