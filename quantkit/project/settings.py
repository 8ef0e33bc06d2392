"""The options of a project: `quantkit.toml`, with flags on top.

Paths in the file are meant from its own folder. Every key has a default but `model` and `data`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantkit.errors import UsageError
from quantkit.graph import Policy, WeightForm
from quantkit.histogram import HistogramMode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "quantkit.toml"
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibrate(Section):
    """Which samples are counted, and how."""

    limit: Count | None = None
    shuffle: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count | None = None
    histogram: HistogramMode = HistogramMode.TENSORRT
    tensorrt_version: str | None = None
    skip_corrupt: bool = False


class Quantize(Section):
    """How the Q/DQ model is made."""

    policy: Policy = Policy.TENSORRT
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    repairs: tuple[str, ...] | None = None
    weights: WeightForm | None = None
    fp16: bool = False


class Build(Section):
    """Which engines are built, where there is a GPU with TensorRT."""

    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "int8")
    shapes: tuple[str, ...] = ()
    level: Annotated[int, Field(ge=0, le=5)] = 3
    fp16: bool = True


class Bench(Section):
    """What is timed."""

    batches: tuple[Count, ...] = (1, 8, 32)
    streams: tuple[Count, ...] = (1, 2)
    seconds: Annotated[float, Field(gt=0, le=3600)] = 0.5


class Evaluate(Section):
    """What accuracy is measured on. data: None takes the calibration data, which flatters INT8, and says so."""

    data: str | None = None
    labels: str | None = None
    classes: str | None = None
    metrics: tuple[str, ...] = ("top1",)
    limit: Count | None = None
    max_drop: Annotated[float, Field(ge=0)] | None = None

    @property
    def tells_all(self) -> bool:
        """Whether options and data identify the figures: they say nothing of the code of a metric, and of labels of
        boxes only where these are given."""
        own = [text for text in self.metrics if not re.fullmatch(r"top\d+(@.*)?", text)]
        return not own or (self.labels is not None and all(re.fullmatch(r"yolo(:\w+)?(@.*)?", text) for text in own))


class Settings(Section):
    """All of it. rule: of table and Q/DQ model; None is mse."""

    model: str | None = None
    data: str | None = None
    preprocess: str | None = None
    rule: str | None = None
    output: str | None = None
    gpu: bool | None = None
    """Build and time engines; None where a GPU and TensorRT are there."""
    calibrate: Calibrate = Field(default_factory=Calibrate)
    quantize: Quantize = Field(default_factory=Quantize)
    build: Build = Field(default_factory=Build)
    bench: Bench = Field(default_factory=Bench)
    evaluate: Evaluate = Field(default_factory=Evaluate)


def read_settings(path: Path) -> Settings:
    """The settings in a file, paths made relative to the working directory. UsageError names file and key, or line."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", remedy="quantkit init writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", remedy="mend the file") from None
    return placed(parsed(document, str(path)), path.parent)


def parsed(document: Mapping[str, Any], where: str) -> Settings:
    """A parsed document as settings. UsageError."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()]
        raise UsageError(
            f"{where}: " + "; ".join(dict.fromkeys(lines)), remedy="quantkit init shows all keys"
        ) from None


def placed(settings: Settings, folder: Path) -> Settings:
    """The settings with paths from `folder`; presets, `module:callable` and absolute paths stay as they are."""

    def from_folder(text: str | None) -> str | None:
        if text is None or not (folder / text).exists():
            return text
        return str(folder / text)

    changed: dict[str, Any] = {name: from_folder(getattr(settings, name)) for name in ("model", "data", "preprocess")}
    changed["output"] = settings.output and str(folder / settings.output)
    own = {name: from_folder(getattr(settings.evaluate, name)) for name in ("data", "labels", "classes")}
    changed["evaluate"] = settings.evaluate.model_copy(update=own)
    return settings.model_copy(update=changed)


def overridden(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """The settings with flags on top: `rule`, or `section.key`; those that are None say nothing. UsageError."""
    document = settings.model_dump()
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.rpartition(".")
            (document[section] if section else document)[key] = value
    return parsed(document, "options")


TEMPLATE = """\
# The options of a project: `quantkit run` reads them here; flags override them. Paths are meant from this folder.

model = {model}
data = {data}              # calibrates: images, .npz, or module:callable
# preprocess = "imagenet"  # or a .toml file. Default: preprocess.toml beside the model
# rule = "mse"             # of table and Q/DQ model: entropy is TensorRT's own
# output = "quantkit-run"  # the build directory
# gpu = true               # insist on engines. Default: where a GPU and TensorRT are there

[evaluate]
# data = "val/"            # measures accuracy. Default: the calibration data, which flatters INT8
# labels = "val.csv"       # Default: class folders, or labels in the .npz
# classes = "classes.txt"  # names of the outputs, in order
# metrics = ["top1"]
# max_drop = 0.5           # points; a larger loss ends with exit code 3
# limit = 10000

[calibrate]
# limit = 512              # samples at most
# tensorrt_version = "8.6.1"

[quantize]
# exclude = ["/head/*"]    # stays float
# repairs = ["bias"]       # of equalize, smooth, round, bias; [] for none. Default: all
# fp16 = true              # the rest of the Q/DQ model in FP16, for TensorRT 11

[build]
# precisions = ["fp32", "tf32", "fp16", "int8"]
# shapes = ["image=1:8:32"]
# level = 3

[bench]
# batches = [1, 8, 32]
# streams = [1, 2]
"""


def template(model: str, data: str) -> str:
    """A `quantkit.toml` with all keys, as comments where they have a default."""
    import json

    return TEMPLATE.format(model=json.dumps(model, ensure_ascii=False), data=json.dumps(data, ensure_ascii=False))
