"""export triton: an engine or an ONNX model as a model repository that Triton Inference Server loads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantkit.data.classes import read_classes
from quantkit.data.preprocess_choice import BESIDE
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
from quantkit.preprocess import Preprocess, load_preprocess, metadata_preprocess, resolve
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

DEFAULT_MAX_BATCH = 8
"""The largest batch of a model without a limit of its own, where nothing was measured."""
NONE = "none"
MEASURED_AS = {"INT8": ("int8",), "FP16": ("fp16",), "FP32": ("tf32", "fp32")}
"""A precision of onnxruntime's TensorRT provider → the engines that it is most like; TF32 is on by default."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How a model is served.

    name: by default the file's, without dots. max_batch: by default the engine's largest, or what was measured; 0 turns
    batches off. accelerator: "tensorrt" lets onnxruntime build an engine of an ONNX model. precision: of that, by
    default INT8 where the model has Q/DQ, else FP32. device, allow_code: for engines without a record.
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
        if self.version < 1:
            raise UsageError(f"--version {self.version}", remedy="versions count from 1")
        if self.max_batch is not None and self.max_batch < 0:
            raise UsageError(f"--max-batch {self.max_batch}", remedy="give 0 for no batches, or the largest batch")
        if self.accelerator not in (None, "tensorrt"):
            raise UsageError(f"unknown accelerator {self.accelerator!r}", remedy="tensorrt, or leave it out")
        if self.precision is not None and self.precision.upper() not in MEASURED_AS:
            raise UsageError(f"unknown precision {self.precision!r}", remedy="one of fp32, fp16, int8")
        if self.precision is not None and self.accelerator is None:
            raise UsageError("--precision is about --accelerator tensorrt", remedy="give both, or neither")


@dataclass(frozen=True, slots=True)
class TritonExport(RichDisplay):
    """What was written. models: their names, the ensemble last. checked: whether Triton's protocol buffers read every
    configuration. notes: what was left out, and why."""

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


def export_triton(
    subject: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: TritonOptions | None = None,
    preprocess: str | Path | Preprocess | None = None,
    labels: str | os.PathLike[str] | None = None,
    bench: str | os.PathLike[str] | None = None,
) -> TritonExport:
    """Write a model repository for Triton Inference Server.

    subject: an engine (`.engine`, `.plan`, `.trt`), or an ONNX model, float or with Q/DQ. output: the repository, which
    may hold other models and other versions. preprocess: preset, TOML file or `Preprocess`, by default
    `preprocess.toml` beside the subject or the model's metadata; "none" for none. With it come a model that makes
    inputs of 8-bit pixels, an ensemble of both, and a client. labels: class names, one a line, or JSON or CSV
    as for `evaluate`. bench: JSON of `quantkit bench`. All models land, or none.

    Raises BackendError, ModelError, PreprocessError, DataError, StaleError, UsageError, OutputError.
    """
    options = options or TritonOptions()
    subject, root = Path(subject), Path(output)
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is no folder", remedy="give a folder with --output")
    served = look_at(subject, options.device, allow_code=options.allow_code)
    told = () if labels is None else read_classes(Path(labels)).names
    classes = tuple(str(i) if name is None else name for i, name in enumerate(told))
    how = deployment(served, options, bench, labelled_outputs(served, classes))
    notes = [f"no batches: {served.unbatched}"] if served.unbatched and options.max_batch is None else []
    spec, made, why = resolve_preprocess(served, preprocess)
    notes += [why] if why else []
    if spec and made:
        served = with_prepared_shape(served, made, spec)
    elif (root / how.ensemble).exists():
        raise UsageError(
            f"{root / how.ensemble} would stay behind and feed another model",
            remedy="remove it, or give its preprocessing with --preprocess",
        )
    models = models_of(served, how, spec, made)
    checked = has_triton()
    if checked:
        for model in models:
            check_config(model.text, model.name, how.most, model.inputs, model.outputs)
    else:
        notes.append(f"the configurations were not read back: {install_command('triton')}")
    texts = {LABELS: "".join(f"{' '.join(c.split())}\n" for c in classes).encode()} if how.labelled else {}
    files = write_repository(root, [m.entry(texts) for m in models], options.version, force=options.force)
    configs = [root / m.name / CONFIG for m in models]
    notes += [f"{path} stays as it is: version {options.version} fits it" for path in configs if path not in files]
    names = tuple(m.name for m in models)
    return TritonExport(root, names, options.version, how.most, files, how.tuning, spec, checked, tuple(notes))


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model of the repository: its configuration, tensors and files. labelled: whether it needs the labels."""

    name: str
    config: Message
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    version: Mapping[str, Content]
    labelled: bool = False
    client: bytes | None = None

    @property
    def text(self) -> str:
        """The configuration."""
        return pbtxt(self.config)

    def entry(self, labels: Mapping[str, bytes]) -> RepositoryEntry:
        """What is written."""
        client = {SCRIPT: self.client} if self.client else {}
        return RepositoryEntry(
            self.name, {CONFIG: self.text.encode(), **(labels if self.labelled else {}), **client}, self.version
        )


def models_of(
    served: ServedModel, how: Deployment, spec: Preprocess | None, made: ServedTensor | None
) -> list[ModelFolder]:
    """The model itself; before it, for images, one that makes the input `made` of pixels, and an ensemble of both."""
    labelled = bool(how.labelled)
    model = ModelFolder(how.name, served_config(served, how), served.inputs, served.outputs, served.files, labelled)
    if spec is None or made is None:
        return [model]
    pixels = pixel_shape(spec, made)
    prepared = ServedTensor(made.name, made.dtype, prepared_shape(spec, pixels))
    inputs = ensemble_inputs(served, made, pixels, how)
    return [
        model,
        ModelFolder(
            how.preprocess,
            preprocess_config(prepared, pixels, how, spec.describe()),
            (ServedTensor(PIXELS, "uint8", pixels),),
            (prepared,),
            {"model.onnx": preprocess_model(spec, prepared).SerializeToString(deterministic=True)},
        ),
        ModelFolder(
            how.ensemble,
            ensemble_config(served, made, pixels, how),
            inputs,
            tuple(triton_tensor(t, how) for t in served.outputs),
            {},
            labelled,
            None if len(inputs) > 1 else client_script(served, made, how, spec),
        ),
    ]


def deployment(
    served: ServedModel, options: TritonOptions, bench: str | os.PathLike[str] | None, labelled: frozenset[str]
) -> Deployment:
    """Name, batches, precision and measured figures. UsageError, StaleError, DataError."""
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
    """The precision of the accelerator; "" without one. UsageError where the model does not allow it."""
    if options.accelerator is None:
        return ""
    if served.platform == PLAN:
        raise UsageError(f"{served.path} is an engine, which needs no accelerator", remedy="leave out --accelerator")
    asked = (options.precision or ("int8" if served.explicit else "fp32")).upper()
    if served.explicit and asked != "INT8":
        raise UsageError(
            f"{served.path} has Q/DQ pairs, which TensorRT takes as int8 only", remedy="leave out --precision"
        )
    if not served.explicit and asked == "INT8":
        raise UsageError(
            f"{served.path} has no Q/DQ pairs, so that there are no scales for int8",
            remedy="quantkit quantize it first",
        )
    return asked


def max_batch_size(served: ServedModel, options: TritonOptions, tuning: BatchTuning | None) -> int:
    """Triton's max_batch_size. UsageError where the model does not take what was asked for."""
    asked = options.max_batch
    if asked and served.unbatched:
        raise UsageError(f"--max-batch {asked}: {served.unbatched}", remedy="leave it out")
    if asked and served.most is not None and asked > served.most:
        raise UsageError(
            f"--max-batch {asked}: the engine takes {served.most} at most", remedy="build it with other --shapes"
        )
    if asked is not None:
        return asked
    if served.unbatched:
        return 0
    return served.most or (tuning.largest if tuning else DEFAULT_MAX_BATCH)


def labelled_outputs(served: ServedModel, classes: tuple[str, ...]) -> frozenset[str]:
    """The outputs whose last dimension is the classes. DataError where there is none."""
    found = frozenset(t.name for t in served.outputs if t.shape and t.shape[-1] == len(classes))
    if classes and not found:
        shapes = ", ".join(t.as_input().describe() for t in served.outputs)
        raise DataError(f"{len(classes)} labels fit no output: {shapes}", remedy="give a label for every class")
    return found if classes else frozenset()


def resolve_preprocess(
    served: ServedModel, asked: str | Path | Preprocess | None
) -> tuple[Preprocess | None, ServedTensor | None, str]:
    """The spec, resolved, and the input that it makes; or why there is none. PreprocessError."""
    if asked == NONE:
        return None, None, ""
    spec = choose_preprocess(served, asked)
    if spec is None:
        return None, None, "no preprocessing is known (--preprocess): no ensemble for images, and no client"
    images = [t for t in served.inputs if len(t.shape) == 4]
    if len(images) != 1:
        problem = f"{served.path.name} has {len(images)} inputs that can be images, not one"
        if asked is not None:
            raise PreprocessError(problem, remedy="leave it to your client: --preprocess none")
        return None, None, f"{problem}: no ensemble, and no client"
    return resolve(spec, images[0].as_input()), images[0], ""


def choose_preprocess(served: ServedModel, asked: str | Path | Preprocess | None) -> Preprocess | None:
    """The spec that was asked for, the one beside the file, or the model's own."""
    if isinstance(asked, Preprocess):
        return asked
    if asked is not None:
        return load_preprocess(asked)
    beside = served.path.parent / BESIDE
    if beside.exists():
        return load_preprocess(beside)
    return metadata_preprocess(load_model(served.path).metadata) if served.platform == ONNX else None


def with_prepared_shape(served: ServedModel, made: ServedTensor, spec: Preprocess) -> ServedModel:
    """The same with the size that preprocessing makes, where nothing else tells it."""
    if made.name in served.usual:
        return served
    shape = prepared_shape(spec, pixel_shape(spec, made))
    return replace(served, usual={**served.usual, made.name: (max(shape[0], 1), *shape[1:])})


def prepared_shape(spec: Preprocess, pixels: Shape) -> Shape:
    """The shape of prepared images, of pixels [N, H, W, C]."""
    batch, height, width, depth = pixels
    return (batch, depth, height, width) if spec.layout == "nchw" else pixels
