"""The options of a project: `quantkit.toml`, overridden by command-line flags.

Paths in the file are relative to its own folder. Every key except `model` and `data` has a default.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantkit.document import DocumentType, validate_typed
from quantkit.errors import UsageError
from quantkit.executors import Placement
from quantkit.histogram import HistogramMode
from quantkit.keywords.option_fields import unknown_keyword
from quantkit.metrics.registry import default_metric, is_reproducible
from quantkit.paths import exists, given_path
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Policy
from quantkit.quantization.node_types import NodeTypes
from quantkit.repairs.registry import repair_choices
from quantkit.values import QuantizedType
from quantkit.view import CONTROL, quoted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE = "quantkit.toml"
NODE_LISTS = ("exclude", "include", "int8", "fp8")
"""Keys of the section `quantize` that name nodes, also by `@FILE`."""
Count = Annotated[int, Field(ge=1)]


class SettingsSection(BaseModel):
    """A frozen section; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what differs from the defaults: all of it would fill ten lines."""
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            if field is None or value != field.get_default(call_default_factory=True):
                yield name, value


class CalibrateSettings(SettingsSection):
    """Which samples calibration reads, and how their values are counted."""

    limit: Count | None = None
    shuffle: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count | None = None
    histogram: HistogramMode = HistogramMode.TENSORRT
    tensorrt_version: str | None = None
    skip_corrupt: bool = False
    frame_step: Count = 1


class QuantizeSettings(SettingsSection):
    """How the Q/DQ model is made. int8, fp8: nodes of the other type than `type`."""

    type: QuantizedType = QuantizedType.INT8
    int8: tuple[str, ...] = ()
    fp8: tuple[str, ...] = ()
    policy: Policy = Policy.TENSORRT
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    repairs: tuple[str, ...] | None = None
    weights: WeightForm | None = None
    fp16: bool = False

    @property
    def types(self) -> NodeTypes:
        """The types of the operators. UsageError."""
        return NodeTypes(self.type, self.int8, self.fp8)


class BuildSettings(SettingsSection):
    """Which engines are built if there is a GPU with TensorRT."""

    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "int8")
    shapes: tuple[str, ...] = ()
    level: Annotated[int, Field(ge=0, le=5)] = 3
    fp16: bool = True
    tune_time: Annotated[float, Field(ge=0, le=10080)] = 10.0
    """Minutes for finding the fastest engine by time; 0 leaves that out."""


class BenchSettings(SettingsSection):
    """How engines are timed."""

    batches: tuple[Count, ...] = (1, 8, 32)
    streams: tuple[Count, ...] = (1, 2)
    seconds: Annotated[float, Field(gt=0, le=3600)] = 0.5


class EvaluateSettings(SettingsSection):
    """How accuracy is measured. data: None takes the calibration data, which is optimistic for INT8, with a note."""

    data: str | None = None
    labels: str | None = None
    classes: str | None = None
    metrics: tuple[str, ...] = Field(default_factory=lambda: (default_metric(),))
    limit: Count | None = None
    skip_corrupt: bool = False
    frame_step: Count = 1
    layers: bool = True
    """Rank the layers of the Q/DQ model by their loss, for the report."""
    max_drop: Annotated[float, Field(ge=0)] | None = None

    def is_reproducible(self, *, labels_known: bool) -> bool:
        """Return True if options, data and labels determine the figures; the code of a user's metric is unknown.

        labels_known: whether the labels that a metric finds by itself are identified.
        """
        return is_reproducible(self.metrics, labels_given=labels_known or self.labels is not None)


class Settings(SettingsSection):
    """All options of a project. rule: calibration method for table and Q/DQ model; None is wmse."""

    model: str | None = None
    data: str | None = None
    preprocess: str | None = None
    rule: str | None = None
    output: str | None = None
    gpu: bool | None = None
    """Build and time engines; None does so if a GPU and TensorRT are available."""
    workers: Count | None = None
    """Processes that divide calibration, ranking of layers and evaluation; None: this one does all."""
    on: str | None = None
    """A Ray cluster for the workers: `ray`, or its address."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    compile: bool | None = None
    """Compile the Q/DQ model with TensorRT-RTX, on the CPU; None does so if that is installed."""
    calibrate: CalibrateSettings = Field(default_factory=CalibrateSettings)
    quantize: QuantizeSettings = Field(default_factory=QuantizeSettings)
    build: BuildSettings = Field(default_factory=BuildSettings)
    bench: BenchSettings = Field(default_factory=BenchSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @property
    def placement(self) -> Placement:
        """Where calibration, ranking of layers and evaluation run. UsageError."""
        return Placement(self.workers, self.on, self.gpus_per_worker)


class RunFields(TypedDict, total=False):
    """The keywords of `run` that are keys of `Settings`; a section is a mapping: `evaluate={"limit": 100}`."""

    model: str | os.PathLike[str] | None
    data: str | os.PathLike[str] | None
    preprocess: str | os.PathLike[str] | None
    rule: str | None
    output: str | os.PathLike[str] | None
    gpu: bool | None
    workers: int | None
    on: str | None
    gpus_per_worker: float
    compile: bool | None
    calibrate: Mapping[str, Any] | CalibrateSettings
    quantize: Mapping[str, Any] | QuantizeSettings
    build: Mapping[str, Any] | BuildSettings
    bench: Mapping[str, Any] | BenchSettings
    evaluate: Mapping[str, Any] | EvaluateSettings


def settings_with(settings: Settings | None, keywords: Mapping[str, Any]) -> Settings:
    """Return settings with other values for some keys, by section. UsageError; TypeError for an unknown keyword."""
    if settings is not None and not isinstance(settings, Settings):
        raise UsageError(
            f"settings is of type {type(settings).__name__}",
            remedy="pass quantkit.Settings(…), quantkit.read_settings(PATH), or model= and data=",
        )
    base = settings or Settings()
    document = asked_for(base)
    for name, value in keywords.items():
        if name not in Settings.model_fields:
            raise TypeError(unknown_keyword("run", name, Settings.model_fields))
        given = value.model_dump(exclude_unset=True) if isinstance(value, SettingsSection) else value
        given = os.fspath(given) if isinstance(given, os.PathLike) else given
        merges = isinstance(getattr(base, name), SettingsSection) and isinstance(given, Mapping)
        document[name] = {**document.get(name, {}), **given} if merges else given
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise settings_error(error, "") from None


def asked_for(settings: Settings) -> dict[str, Any]:
    """Return the settings that somebody gave: one that equals its default differs from one that nobody asked for."""
    return settings.model_dump(exclude_unset=True)


SETTINGS = DocumentType[Settings](
    Settings, "a file of options", UsageError, "fix the file", form="TOML", absent="create one with quantkit init"
)


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Read a file, with its paths made relative to the working directory. UsageError names the key or the line."""
    path = given_path(path, "the file of settings")
    document = SETTINGS.read_untyped(path)
    try:
        settings: Settings = validate_typed(document, Settings)
    except ValidationError as error:
        raise settings_error(error, f"{path}: ") from None
    return resolve_setting_paths(settings, path.parent)


def settings_error(error: ValidationError, where: str, names: Mapping[str, str] | None = None) -> UsageError:
    """Return what pydantic found as an error that names every wrong key.

    where: prefix of the message. names: key → its name in the message.
    """
    faults = error.errors()
    lines = dict.fromkeys(describe_fault(fault, names or {}) for fault in faults)
    unknown = any(fault["type"] == "extra_forbidden" for fault in faults)
    remedy = "quantkit init shows all keys" if unknown else "quantkit run --help" if names else "fix the file"
    return UsageError(where + "; ".join(lines), remedy=remedy)


def describe_fault(fault: ErrorDetails, names: Mapping[str, str]) -> str:
    """Return for example `calibrate.limit is 0: input should be greater than or equal to 1`.

    names: key → the command-line option to name instead.
    """
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], section_keys(path[:-1]), 1)
        return f"{key} is not a known key" + (f"; did you mean {near[0]}?" if near else "")
    known = next((names[above] for n in range(len(path), 0, -1) if (above := ".".join(path[:n])) in names), key)
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{known} is {quoted(fault['input'])}: {message}"


def section_keys(path: Sequence[str]) -> list[str]:
    """Return the keys of the section at a path."""
    section: Any = Settings
    for name in path:
        section = section.model_fields[name].annotation
    return list(section.model_fields)


def resolve_setting_paths(settings: Settings, folder: Path) -> Settings:
    """Resolve relative paths against `folder`; presets, `module:callable` and absolute paths do not change."""

    def below(text: str | None) -> str | None:
        return None if text is None else str(folder / text)

    def if_there(text: str | None) -> str | None:
        return text if text is None or not exists(folder / text) else str(folder / text)

    def named(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"@{folder / text[1:]}" if text.startswith("@") else text for text in texts)

    chosen, wanted = settings.quantize, settings.evaluate
    lists = {name: named(getattr(chosen, name)) for name in NODE_LISTS}
    own = {"data": if_there(wanted.data), "labels": below(wanted.labels), "classes": below(wanted.classes)}
    changed = {
        "model": below(settings.model),
        "data": if_there(settings.data),
        "preprocess": if_there(settings.preprocess),
        "output": below(settings.output),
        "quantize": chosen.model_copy(update=lists),
        "evaluate": wanted.model_copy(update=own),
    }
    return settings.model_copy(update=changed)


def override_settings(settings: Settings, flags: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Settings:
    """Override settings by flags (`rule` or `section.key`) that are not None. UsageError.

    names: key → its name in error messages.
    """
    document = asked_for(settings)
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.rpartition(".")
            (document.setdefault(section, {}) if section else document)[key] = value
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise settings_error(error, "", names) from None


TEMPLATE = """\
# The options of a project for `quantkit run`; command-line flags override them. Paths are relative to this folder.

model = {model}
data = {data}              # for calibration: images, .npz, or module:callable
# preprocess = "imagenet"  # or a .toml file. Default: preprocess.toml beside the model
# rule = "wmse"            # calibration method; entropy is TensorRT's default
# output = "quantkit-run"  # the build directory
# gpu = true               # require engines. Default: build them if a GPU and TensorRT are available
# workers = 4              # processes that divide calibration, layers and evaluation
# on = "ray"               # a Ray cluster for the workers, or its address
# compile = true           # compile the Q/DQ model with TensorRT-RTX. Default: if that is installed

[evaluate]
# data = "val/"            # for accuracy. Default: the calibration data, which is optimistic for INT8
# labels = "val.csv"       # Default: class folders, or labels in the .npz
# classes = "classes.txt"  # names of the outputs, in order
# metrics = {metrics}
# layers = false           # no ranking of layers in the report
# max_drop = 0.5           # percentage points; exit code 3 if a model loses more
# limit = 10000
# skip_corrupt = true      # skip images that cannot be read

[calibrate]
# limit = 512              # maximum number of samples
# tensorrt_version = "8.6.1"
# skip_corrupt = true

[quantize]
# type = "fp8"             # FP8 (E4M3) for TensorRT 10 and SM89 or newer. Default: "int8"
# int8 = ["/stem/*"]       # nodes that are INT8 all the same; fp8 = [...] where the type is "int8"
# exclude = ["/head/*"]    # nodes that stay float; "@FILE" reads names from a file
# repairs = ["bias"]       # any of {repairs}; [] for none. Default: all
# fp16 = true              # the rest of the Q/DQ model in FP16, for TensorRT 11

[build]
# precisions = ["fp32", "tf32", "fp16", "int8"]
# shapes = ["image=1:8:32"]
# level = 3
# tune_time = 10           # minutes for finding the fastest engine; 0 leaves that out

[bench]
# batches = [1, 8, 32]
# streams = [1, 2]
"""


def quote_toml(text: str) -> str:
    """Return a string of TOML. UsageError for a file name that is not UTF-8, which TOML cannot hold."""
    if not text.isascii() and text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass"):
        raise UsageError(f"the name {text!r} is not UTF-8, which TOML needs", remedy="rename the file")
    return CONTROL.sub(lambda match: f"\\U{ord(match[0]):08x}", json.dumps(text, ensure_ascii=False))


def settings_template(model: str, data: str) -> str:
    """Return a `quantkit.toml` with all keys; those with a default are comments. UsageError for names not in UTF-8."""
    return TEMPLATE.format(
        model=quote_toml(model),
        data=quote_toml(data),
        metrics=json.dumps([default_metric()]),
        repairs=repair_choices(),
    )
