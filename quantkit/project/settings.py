"""The options of a project: `quantkit.toml`, with flags on top.

Paths in the file are meant from its own folder. Every key has a default but `model` and `data`.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantkit.errors import UsageError
from quantkit.histogram import HistogramMode
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Policy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
    skip_corrupt: bool = False
    layers: bool = True
    """Rank the layers of the Q/DQ model by what they lose, for the report."""
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
    return placed(parsed(document, f"{path}: "), path.parent)


def parsed(document: Mapping[str, Any], where: str, names: Mapping[str, str] | None = None) -> Settings:
    """A parsed document as settings. where: what errors begin with; names: what errors call keys. UsageError."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        faults = error.errors()
        lines = dict.fromkeys(fault_told(fault, names or {}) for fault in faults)
        unknown = any(fault["type"] == "extra_forbidden" for fault in faults)
        remedy = "quantkit init shows all keys" if unknown else "quantkit run --help" if names else "mend the file"
        raise UsageError(where + "; ".join(lines), remedy=remedy) from None


def fault_told(fault: ErrorDetails, names: Mapping[str, str]) -> str:
    """`calibrate.limit is 0: input should be greater than or equal to 1`, with the option's name where there is one."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], keys_of(path[:-1]), 1)
        return f"{key}: there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    known = next((names[above] for n in range(len(path), 0, -1) if (above := ".".join(path[:n])) in names), key)
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{known} is {fault['input']!r}: {message}"


def keys_of(path: Sequence[str]) -> list[str]:
    """The keys of the section at a path."""
    section: Any = Settings
    for name in path:
        section = section.model_fields[name].annotation
    return list(section.model_fields)


def placed(settings: Settings, folder: Path) -> Settings:
    """The settings with paths from `folder`; presets, `module:callable` and absolute paths stay as they are."""

    def below(text: str | None) -> str | None:
        return None if text is None else str(folder / text)

    def if_there(text: str | None) -> str | None:
        return text if text is None or not (folder / text).exists() else str(folder / text)

    def named(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"@{folder / text[1:]}" if text.startswith("@") else text for text in texts)

    chosen, wanted = settings.quantize, settings.evaluate
    own = {"data": if_there(wanted.data), "labels": below(wanted.labels), "classes": below(wanted.classes)}
    changed = {
        "model": below(settings.model),
        "data": if_there(settings.data),
        "preprocess": if_there(settings.preprocess),
        "output": below(settings.output),
        "quantize": chosen.model_copy(update={"exclude": named(chosen.exclude), "include": named(chosen.include)}),
        "evaluate": wanted.model_copy(update=own),
    }
    return settings.model_copy(update=changed)


def overridden(settings: Settings, flags: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Settings:
    """The settings with flags on top: `rule`, or `section.key`; those that are None say nothing. names: what errors
    call them. UsageError."""
    document = settings.model_dump()
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.rpartition(".")
            (document[section] if section else document)[key] = value
    return parsed(document, "", names)


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
# layers = false           # no ranking of layers in the report
# max_drop = 0.5           # points; a larger loss ends with exit code 3
# limit = 10000
# skip_corrupt = true      # leave images out that cannot be read

[calibrate]
# limit = 512              # samples at most
# tensorrt_version = "8.6.1"
# skip_corrupt = true

[quantize]
# exclude = ["/head/*"]    # stays float; "@FILE" stands for its lines
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
