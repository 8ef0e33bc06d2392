"""export triton: an engine or an ONNX model as a model repository that Triton Inference Server loads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from quantkit.artifact import text_bytes
from quantkit.data.classes import read_classes
from quantkit.data.preprocess_choice import BESIDE
from quantkit.data.spec_limits import apply_spec
from quantkit.errors import DataError, PreprocessError, UsageError
from quantkit.export.batching import choose_batching, read_bench
from quantkit.export.checking import check_config, has_triton
from quantkit.export.client import SCRIPT, client_script
from quantkit.export.config import (
    LABELS,
    Deployment,
    ensemble_config,
    ensemble_inputs,
    preprocess_config,
    served_config,
    triton_tensor,
)
from quantkit.export.normalization import PIXELS, pixel_shape, preprocess_model
from quantkit.export.repository import CONFIG, Content, RepositoryEntry, check_name, write_repository
from quantkit.export.served_model import ONNX, PLAN, BatchTuning, ServedModel, ServedTensor, Shape
from quantkit.export.serving import read_served_model as look_at
from quantkit.export.text import Message, pbtxt
from quantkit.extras import install_command
from quantkit.graph import load_model
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import exists, given_path, is_folder
from quantkit.preprocess import Preprocess, load_preprocess, metadata_preprocess
from quantkit.values import check_number, checked_options
from quantkit.view import Block, Remarks, RichDisplay, ViewTable, escape_controls

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_MAX_BATCH = 8
"""The largest batch of a model without a limit of its own, if nothing was measured."""
NONE = "none"
MEASURED_AS = {"INT8": ("int8",), "FP16": ("fp16",), "FP32": ("tf32", "fp32")}
"""A precision of onnxruntime's TensorRT provider → the engines that resemble it; TF32 is on by default."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Options of `export_triton`.

    name: by default that of the file, without dots. max_batch: by default the engine's largest batch, or what was
    measured; 0 disables batches. accelerator: "tensorrt" makes onnxruntime build an engine from an ONNX model.
    precision: of that engine, by default INT8 if the model has Q/DQ pairs, else FP32. device, allow_code: for engines
    without a record.
    """

    name: str | None = None
    version: int = 1
    max_batch: int | None = None
    accelerator: str | None = None
    precision: str | None = None
    device: int = 0
    allow_code: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        check_number("version", self.version, 1, (1 << 63) - 1)
        check_number("max_batch", self.max_batch, 0)
        if self.accelerator not in (None, "tensorrt"):
            raise UsageError(f"unknown accelerator {self.accelerator!r}", remedy="give tensorrt, or omit it")
        if self.precision is not None and self.precision.upper() not in MEASURED_AS:
            raise UsageError(f"unknown precision {self.precision!r}", remedy="give fp32, fp16 or int8")
        if self.precision is not None and self.accelerator is None:
            raise UsageError("--precision has no effect without --accelerator tensorrt", remedy="give both, or neither")


class TritonFields(TypedDict, total=False):
    """The keywords of `export_triton` that are fields of `TritonOptions`."""

    name: str | None
    version: int
    max_batch: int | None
    accelerator: str | None
    precision: str | None
    device: int
    allow_code: bool
    force: bool


@dataclass(frozen=True, slots=True)
class TritonExport(RichDisplay):
    """The result of an export.

    models: their names, the ensemble last. checked: True if Triton's protocol buffers have parsed every configuration.
    notes: what was omitted, and why.
    """

    repository: Path
    models: tuple[str, ...]
    version: int
    max_batch: int
    files: tuple[Path, ...]
    tuning: BatchTuning | None
    preprocess: Preprocess | None
    checked: bool
    notes: tuple[str, ...] = ()

    def _view_(self) -> Sequence[Block]:
        rows = [(path.relative_to(self.repository).as_posix(),) for path in self.files]
        what = f"{', '.join(self.models)}: version {self.version}, batches of up to {self.max_batch}"
        return what, ViewTable(("file",), rows), Remarks(self.notes)


@takes_fields(TritonOptions)
def export_triton(
    subject: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: TritonOptions | None = None,
    preprocess: str | Path | Preprocess | None = None,
    labels: str | os.PathLike[str] | None = None,
    bench: str | os.PathLike[str] | None = None,
    **_: Unpack[TritonFields],
) -> TritonExport:
    """Write a model repository for Triton Inference Server.

    subject: an engine (`.engine`, `.plan`, `.trt`), or an ONNX model, float or with Q/DQ. output: the repository, which
    may contain other models and versions. preprocess: preset, TOML file or `Preprocess`, by default `preprocess.toml`
    beside the subject or the model's metadata; "none" for none. It adds a model that preprocesses 8-bit pixels, an
    ensemble of both, and a client. labels: class names, one per line, or JSON or CSV as for `evaluate`. bench: JSON of
    `quantkit bench`. Either all models are written or none.

    Raises BackendError, ModelError, PreprocessError, DataError, StaleError, UsageError, OutputError.
    """
    options = checked_options(options, TritonOptions)
    subject, root = given_path(subject, "the model"), given_path(output, "output")
    if exists(root) and not is_folder(root):
        raise UsageError(f"{root} is not a folder", remedy="give a folder with --output")
    served = look_at(subject, options.device, allow_code=options.allow_code)
    names_of_classes = () if labels is None else read_classes(Path(labels)).names
    classes = tuple(str(i) if name is None else name for i, name in enumerate(names_of_classes))
    deployment = resolve_deployment(served, options, bench, labelled_outputs(served, classes))
    notes = [f"batching is off: {served.unbatched}"] if served.unbatched and options.max_batch is None else []
    spec, made, why = resolve_preprocess(served, preprocess)
    notes += [why] if why else []
    if spec and made:
        served = with_prepared_shape(served, made, spec)
    elif exists(root / deployment.ensemble):
        raise UsageError(
            f"{root / deployment.ensemble} would remain and feed a different model",
            remedy="remove it, or give its preprocessing with --preprocess",
        )
    models = models_of(served, deployment, spec, made)
    checked = has_triton()
    if checked:
        for model in models:
            check_config(model.text, model.name, deployment.max_batch, model.inputs, model.outputs)
    else:
        notes.append(f"the configurations were not read back: {install_command('triton')}")
    lines = "".join(f"{escape_controls(' '.join(c.split()))}\n" for c in classes)
    texts = {LABELS: text_bytes(lines)} if deployment.labelled else {}
    files = write_repository(root, [m.entry(texts) for m in models], options.version, force=options.force)
    configs = [root / m.name / CONFIG for m in models]
    notes += [
        f"{path} is unchanged, because version {options.version} is compatible with it"
        for path in configs
        if path not in files
    ]
    names = tuple(m.name for m in models)
    return TritonExport(
        root, names, options.version, deployment.max_batch, files, deployment.tuning, spec, checked, tuple(notes)
    )


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model of the repository: its configuration, tensors and files. labelled: True if it needs the class names."""

    name: str
    config: Message
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    version: Mapping[str, Content]
    labelled: bool = False
    client: bytes | None = None

    @property
    def text(self) -> str:
        """The configuration as text."""
        return pbtxt(self.config)

    def entry(self, labels: Mapping[str, bytes]) -> RepositoryEntry:
        """Return the model with its files as an entry of the repository."""
        client = {SCRIPT: self.client} if self.client else {}
        return RepositoryEntry(
            self.name, {CONFIG: text_bytes(self.text), **(labels if self.labelled else {}), **client}, self.version
        )


def models_of(
    served: ServedModel, deployment: Deployment, spec: Preprocess | None, made: ServedTensor | None
) -> list[ModelFolder]:
    """Return the model itself, and for images one that preprocesses pixels to its input `made`, and an ensemble."""
    labelled = bool(deployment.labelled)
    model = ModelFolder(
        deployment.name, served_config(served, deployment), served.inputs, served.outputs, served.files, labelled
    )
    if spec is None or made is None:
        return [model]
    pixels = pixel_shape(spec, made)
    prepared = ServedTensor(made.name, made.dtype, prepared_shape(spec, pixels))
    inputs = ensemble_inputs(served, made, pixels, deployment)
    return [
        model,
        ModelFolder(
            deployment.preprocess,
            preprocess_config(prepared, pixels, deployment, spec.describe()),
            (ServedTensor(PIXELS, "uint8", pixels),),
            (prepared,),
            {"model.onnx": preprocess_model(spec, prepared).SerializeToString(deterministic=True)},
        ),
        ModelFolder(
            deployment.ensemble,
            ensemble_config(served, made, pixels, deployment),
            inputs,
            tuple(triton_tensor(t, deployment) for t in served.outputs),
            {},
            labelled,
            None if len(inputs) > 1 else client_script(served, made, deployment, spec),
        ),
    ]


def resolve_deployment(
    served: ServedModel, options: TritonOptions, bench: str | os.PathLike[str] | None, labelled: frozenset[str]
) -> Deployment:
    """Return name, batches, precision and measured figures. UsageError, StaleError, DataError."""
    precision = accelerator_precision(served, options)
    tuning = None
    if bench is not None:
        measured = read_bench(Path(bench))
        tuning = choose_batching(measured, served, MEASURED_AS.get(precision, ()), str(bench), options.max_batch)
    unmeasured = "" if tuning else "nothing was measured (quantkit bench … --json, then --bench)"
    name = options.name or re.sub(r"[^A-Za-z0-9_-]+", "_", served.path.stem)
    return Deployment(
        check_name(name),
        max_batch_size(served, options, tuning),
        tuning,
        unmeasured,
        options.accelerator,
        precision,
        labelled,
    )


def accelerator_precision(served: ServedModel, options: TritonOptions) -> str:
    """Return the precision of the accelerator; "" without one. UsageError if the model does not allow it."""
    if options.accelerator is None:
        return ""
    if served.platform == PLAN:
        raise UsageError(f"{served.path} is an engine, which needs no accelerator", remedy="omit --accelerator")
    asked = (options.precision or ("int8" if served.explicit else "fp32")).upper()
    if served.explicit and asked != "INT8":
        raise UsageError(
            f"{served.path} has Q/DQ pairs, which TensorRT accepts only as int8", remedy="omit --precision"
        )
    if not served.explicit and asked == "INT8":
        raise UsageError(
            f"{served.path} has no Q/DQ pairs and thus no scales for int8",
            remedy="run quantkit quantize first",
        )
    return asked


def max_batch_size(served: ServedModel, options: TritonOptions, tuning: BatchTuning | None) -> int:
    """Return Triton's max_batch_size. UsageError if the model does not accept the requested one."""
    asked = options.max_batch
    if asked and served.unbatched:
        raise UsageError(f"--max-batch {asked} is impossible: {served.unbatched}", remedy="omit it")
    if asked and served.max_batch is not None and asked > served.max_batch:
        raise UsageError(
            f"--max-batch {asked} exceeds the engine's largest batch of {served.max_batch}",
            remedy="build it with other --shapes",
        )
    if asked is not None:
        return asked
    if served.unbatched:
        return 0
    return served.max_batch or (tuning.largest if tuning else DEFAULT_MAX_BATCH)


def labelled_outputs(served: ServedModel, classes: tuple[str, ...]) -> frozenset[str]:
    """Return the outputs whose last dimension is the classes. DataError if there are none."""
    found = frozenset(t.name for t in served.outputs if t.shape and t.shape[-1] == len(classes))
    if classes and not found:
        shapes = ", ".join(t.as_input().describe() for t in served.outputs)
        raise DataError(f"{len(classes)} labels match no output: {shapes}", remedy="give one label per class")
    return found if classes else frozenset()


def resolve_preprocess(
    served: ServedModel, asked: str | Path | Preprocess | None
) -> tuple[Preprocess | None, ServedTensor | None, str]:
    """Return the resolved preprocessing and the input that it makes, or why there is none. PreprocessError."""
    if asked == NONE:
        return None, None, ""
    spec = choose_preprocess(served, asked)
    if spec is None:
        return None, None, "preprocessing is unknown (--preprocess): no ensemble for images and no client were written"
    images = [t for t in served.inputs if len(t.shape) == 4]
    if len(images) != 1:
        problem = f"{served.path.name} has {len(images)} inputs that can be images, but exactly one is needed"
        if asked is not None:
            raise PreprocessError(problem, remedy="leave it to your client: --preprocess none")
        return None, None, f"{problem}: no ensemble and no client were written"
    return apply_spec(spec, images[0].as_input()), images[0], ""


def choose_preprocess(served: ServedModel, asked: str | Path | Preprocess | None) -> Preprocess | None:
    """Return the preprocessing that was requested, that beside the file, or that in the model's metadata."""
    if isinstance(asked, Preprocess):
        return asked
    if asked is not None:
        return load_preprocess(asked)
    beside = served.path.parent / BESIDE
    if exists(beside):
        return load_preprocess(beside)
    return metadata_preprocess(load_model(served.path).metadata) if served.platform == ONNX else None


def with_prepared_shape(served: ServedModel, made: ServedTensor, spec: Preprocess) -> ServedModel:
    """Return the model with the size that preprocessing makes as example shape, if that is not known otherwise."""
    if made.name in served.example_shapes:
        return served
    shape = prepared_shape(spec, pixel_shape(spec, made))
    return replace(served, example_shapes={**served.example_shapes, made.name: (max(shape[0], 1), *shape[1:])})


def prepared_shape(spec: Preprocess, pixels: Shape) -> Shape:
    """Return the shape of preprocessed images for pixels [N, H, W, C]."""
    batch, height, width, depth = pixels
    return (batch, depth, height, width) if spec.layout == "nchw" else pixels
