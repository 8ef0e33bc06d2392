"""The `config.pbtxt` of every model in the repository, with its reasons as remarks.

Source: Triton Inference Server, "Model Configuration", "Model Warmup", "Ensemble Models", and the README of its
onnxruntime backend (parameters of the TensorRT accelerator).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit._version import __version__
from quantkit.errors import ModelError
from quantkit.export.normalization import PIXELS
from quantkit.export.served_model import ENSEMBLE, ONNX, PLAN, BatchTuning, ServedModel, ServedTensor, Shape
from quantkit.export.text import Message, Remark, Word

TYPES: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16",
}  # fmt: skip
"""numpy's names of types → Triton's, without TYPE_."""
LABELS = "labels.txt"


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a model is served.

    most: Triton's max_batch_size; 0 where shapes are whole. unmeasured: what stands for figures that were not given.
    accelerator: "tensorrt" for onnxruntime's provider, with its precision. labelled: outputs whose last dimension is
    classes.
    """

    name: str
    most: int
    tuning: BatchTuning | None = None
    unmeasured: str = ""
    accelerator: str | None = None
    precision: str = ""
    labelled: frozenset[str] = frozenset()

    @property
    def preprocess(self) -> str:
        """The name of the model that makes inputs of pixels."""
        return f"{self.name}_preprocess"

    @property
    def ensemble(self) -> str:
        """The name of both together."""
        return f"{self.name}_ensemble"


def served_config(served: ServedModel, how: Deployment) -> Message:
    """The model itself."""
    return (
        *config_head(how.name, served.platform, how.most, served.about),
        *unbatched_remark(served, how),
        *(("input", tensor_config(t, how.most)) for t in served.inputs),
        *(("output", tensor_config(t, how.most, t.name in how.labelled)) for t in served.outputs),
        *version_policy(),
        *instance_group(how, "KIND_GPU" if served.platform == PLAN or how.accelerator else "KIND_AUTO"),
        *dynamic_batching(how),
        *cuda_graphs(served, how),
        *accelerator_config(served, how),
        *warmup_config(served, how),
    )


def preprocess_config(made: ServedTensor, pixels: Shape, how: Deployment, about: str) -> Message:
    """The model that makes an input of pixels."""
    streams = how.tuning.streams if how.tuning else 1
    return (
        *config_head(how.preprocess, ONNX, how.most, (f"preprocessing behind decoding and resizing: {about}",)),
        ("input", tensor_config(ServedTensor(PIXELS, "uint8", pixels), how.most)),
        ("output", tensor_config(made, how.most)),
        *version_policy(),
        Remark(),
        Remark("as many as the model has; requests are batched there, not here"),
        ("instance_group", (("count", streams), ("kind", Word("KIND_AUTO")))),
    )


def ensemble_config(served: ServedModel, made: ServedTensor, pixels: Shape, how: Deployment) -> Message:
    """Both together: pixels in, the model's outputs out; its other inputs pass through."""
    whole = ensemble_pixels(served)
    steps: list[Message] = [
        (
            ("model_name", how.preprocess),
            ("model_version", -1),
            ("input_map", {PIXELS: whole}),
            ("output_map", {made.name: made.name}),
        ),
        (
            ("model_name", how.name),
            ("model_version", -1),
            ("input_map", {t.name: t.name for t in served.inputs}),
            ("output_map", {t.name: t.name for t in served.outputs}),
        ),
    ]
    return (
        *config_head(
            how.ensemble, ENSEMBLE, how.most, (f"8-bit pixels, decoded and resized by the client, through {how.name}",)
        ),
        *(("input", tensor_config(t, how.most)) for t in ensemble_inputs(served, made, pixels, how)),
        *(("output", tensor_config(triton_tensor(t, how), how.most, t.name in how.labelled)) for t in served.outputs),
        Remark(),
        Remark("-1: the newest version that is served"),
        ("ensemble_scheduling", (("step", steps),)),
    )


def ensemble_inputs(
    served: ServedModel, made: ServedTensor, pixels: Shape, how: Deployment
) -> tuple[ServedTensor, ...]:
    """The pixels, and the model's other inputs."""
    others = (triton_tensor(t, how) for t in served.inputs if t.name != made.name)
    return (ServedTensor(ensemble_pixels(served), "uint8", pixels), *others)


def triton_tensor(t: ServedTensor, how: Deployment) -> ServedTensor:
    """A tensor as Triton shows it, reshaped where it is nothing but a batch."""
    return ServedTensor(t.name, t.dtype, (*t.shape, 1)) if how.most and len(t.shape) == 1 else t


def ensemble_pixels(served: ServedModel) -> str:
    """The ensemble's name for the pixels, which no other tensor of it has."""
    name, taken = PIXELS, {t.name for t in (*served.inputs, *served.outputs)}
    while name in taken:
        name += "_"
    return name


def config_head(name: str, platform: str, most: int, about: Sequence[str]) -> Message:
    """What stands first."""
    return (
        Remark(f"written by quantkit {__version__}"),
        *(Remark(text) for text in about),
        Remark(),
        ("name", name),
        ("platform", platform),
        ("max_batch_size", most),
    )


def unbatched_remark(served: ServedModel, how: Deployment) -> Message:
    """Why there are no batches, where there are none."""
    return (
        (Remark(f"shapes are whole, without Triton's batches: {served.unbatched}"),)
        if not how.most and served.unbatched
        else ()
    )


def tensor_config(t: ServedTensor, most: int, labelled: bool = False) -> Message:
    """An input or output; without its batch where Triton makes batches. ModelError where Triton has no such."""
    if t.dtype not in TYPES:
        raise ModelError(f"{t.name!r} is {t.dtype}, which Triton does not have", remedy="export it with another type")
    if not most and not t.shape:
        raise ModelError(
            f"{t.name!r} is a scalar, which Triton does not have", remedy="give it the shape [1] in the model"
        )
    dims = list(t.shape[1:] if most else t.shape)
    # Triton's dims are never empty; what the model sees is said by reshape, which only batches may have empty
    reshape: Message = () if dims else (("reshape", (("shape", []),)),)
    labels: Message = (("label_filename", LABELS),) if labelled else ()
    return (
        ("name", t.name),
        ("data_type", Word(f"TYPE_{TYPES[t.dtype]}")),
        ("dims", dims or [1]),
        *reshape,
        *labels,
    )


def version_policy() -> Message:
    """Which versions are served."""
    return (
        Remark(),
        Remark("the newest version is served; older ones stay on disk, to go back to"),
        ("version_policy", (("latest", (("num_versions", 1),)),)),
    )


def instance_group(how: Deployment, kind: str) -> Message:
    """How many run at once, on each GPU."""
    why = how.tuning.why if how.tuning else f"{how.unmeasured}: one instance"
    return (
        Remark(),
        Remark(why),
        ("instance_group", (("count", how.tuning.streams if how.tuning else 1), ("kind", Word(kind)))),
    )


def dynamic_batching(how: Deployment) -> Message:
    """Dynamic batching, where the model takes batches and was not fastest without."""
    alone = how.tuning is not None and how.tuning.largest == 1  # no batch was measured that will be served
    if not how.most or (alone and how.most == 1) or (how.tuning and how.tuning.batch == 1 and not alone):
        return ()
    if how.tuning is None or alone:
        why = "batches of what waits anyway; nobody is kept waiting" + (", for none was measured" if alone else "")
        return (Remark(), Remark(why), ("dynamic_batching", ()))
    return (
        Remark(),
        Remark("waits for a full batch no longer than such a batch takes at full load"),
        (
            "dynamic_batching",
            (
                ("preferred_batch_size", [min(how.tuning.batch, how.most)]),
                ("max_queue_delay_microseconds", how.tuning.delay),
            ),
        ),
    )


def cuda_graphs(served: ServedModel, how: Deployment) -> Message:
    """CUDA graphs for an engine that was fastest with them."""
    if served.platform != PLAN or how.tuning is None or not how.tuning.graph:
        return ()
    return (Remark(), Remark("CUDA graphs: measured faster"), ("optimization", (("cuda", (("graphs", True),)),)))


def accelerator_config(served: ServedModel, how: Deployment) -> Message:
    """onnxruntime's TensorRT provider. The shapes of its profile are given, since it builds anew for every other."""
    if how.accelerator is None:
        return ()
    parameters = {"precision_mode": how.precision}
    fixed = all(-1 not in t.shape[1:] for t in served.inputs)
    if how.most and fixed:
        best = how.tuning.batch if how.tuning else how.most
        for key, batch in (("min", 1), ("opt", min(best, how.most)), ("max", how.most)):
            shapes = ",".join(f"{t.name}:{'x'.join(map(str, (batch, *t.shape[1:])))}" for t in served.inputs)
            parameters[f"trt_profile_{key}_shapes"] = shapes
    why = {
        "INT8": "INT8 with the scales of the model's own Q/DQ pairs; what has none runs in FP32 or TF32",
        "FP16": "FP16",
        "FP32": "FP32, as the model has it",
    }[how.precision]
    accelerator: Message = (("name", how.accelerator), ("parameters", Pairs(parameters)))
    return (
        Remark(),
        Remark(f"{why}; the engine is built while the model is loaded"),
        ("optimization", (("execution_accelerators", (("gpu_execution_accelerator", accelerator),)),)),
    )


Pairs = dict[str, str]


def warmup_config(served: ServedModel, how: Deployment) -> Message:
    """Zeros through the model before it is called ready, alone and in the batch that is preferred."""
    if any(t.name not in served.usual for t in served.inputs):
        return (Remark(), Remark("no warm-up: nothing tells the sizes of all dimensions"))
    best = min(how.tuning.batch if how.tuning else how.most, how.most)
    sizes = sorted({1, best}) if how.most else [1]
    return (
        Remark(),
        Remark("the first request finds everything built and loaded"),
        *(("model_warmup", warmup_request(served, how.most, size)) for size in sizes),
    )


def warmup_request(served: ServedModel, most: int, batch: int) -> Message:
    """One warm-up request."""
    inputs: list[Any] = []
    for t in served.inputs:
        shape = served.usual[t.name]
        value: Message = (
            ("data_type", Word(f"TYPE_{TYPES[t.dtype]}")),
            ("dims", list(shape[1:] if most else shape) or [1]),
            ("zero_data", True),
        )
        inputs.append((("key", t.name), ("value", value)))
    return (("name", f"zeros, batch {batch}" if most else "zeros"), ("batch_size", batch), ("inputs", inputs))
