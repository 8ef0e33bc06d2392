"""The `config.pbtxt` of every model in the repository, with explanations as comments.

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
"""numpy's name of a type → Triton's, without TYPE_."""
LABELS = "labels.txt"


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings for serving a model.

    max_batch: Triton's max_batch_size; 0 if shapes include the batch. unmeasured: why there are no measured figures.
    accelerator: "tensorrt" for onnxruntime's provider, with its precision. labelled: outputs whose last dimension is
    the classes.
    """

    name: str
    max_batch: int
    tuning: BatchTuning | None = None
    unmeasured: str = ""
    accelerator: str | None = None
    precision: str = ""
    labelled: frozenset[str] = frozenset()

    @property
    def preprocess(self) -> str:
        """The name of the model that preprocesses pixels."""
        return f"{self.name}_preprocess"

    @property
    def ensemble(self) -> str:
        """The name of the ensemble of both models."""
        return f"{self.name}_ensemble"


def served_config(served: ServedModel, deployment: Deployment) -> Message:
    """Return the configuration of the model itself."""
    return (
        *config_head(deployment.name, served.platform, deployment.max_batch, served.comments),
        *unbatched_remark(served, deployment),
        *(("input", tensor_config(t, deployment.max_batch)) for t in served.inputs),
        *(("output", tensor_config(t, deployment.max_batch, t.name in deployment.labelled)) for t in served.outputs),
        *version_policy(),
        *instance_group(deployment, "KIND_GPU" if served.platform == PLAN or deployment.accelerator else "KIND_AUTO"),
        *dynamic_batching(deployment),
        *cuda_graphs(served, deployment),
        *accelerator_config(served, deployment),
        *warmup_config(served, deployment),
    )


def preprocess_config(made: ServedTensor, pixels: Shape, deployment: Deployment, about: str) -> Message:
    """Return the configuration of the model that preprocesses pixels."""
    streams = deployment.tuning.streams if deployment.tuning else 1
    return (
        *config_head(
            deployment.preprocess, ONNX, deployment.max_batch, (f"preprocessing after decoding and resizing: {about}",)
        ),
        ("input", tensor_config(ServedTensor(PIXELS, "uint8", pixels), deployment.max_batch)),
        ("output", tensor_config(made, deployment.max_batch)),
        *version_policy(),
        Remark(),
        Remark("as many instances as the model; requests are batched there, not here"),
        ("instance_group", (("count", streams), ("kind", Word("KIND_AUTO")))),
    )


def ensemble_config(served: ServedModel, made: ServedTensor, pixels: Shape, deployment: Deployment) -> Message:
    """Return the configuration of the ensemble: from pixels to the model's outputs; other inputs pass through."""
    whole = ensemble_pixels(served)
    steps: list[Message] = [
        (
            ("model_name", deployment.preprocess),
            ("model_version", -1),
            ("input_map", {PIXELS: whole}),
            ("output_map", {made.name: made.name}),
        ),
        (
            ("model_name", deployment.name),
            ("model_version", -1),
            ("input_map", {t.name: t.name for t in served.inputs}),
            ("output_map", {t.name: t.name for t in served.outputs}),
        ),
    ]
    return (
        *config_head(
            deployment.ensemble,
            ENSEMBLE,
            deployment.max_batch,
            (f"8-bit pixels, decoded and resized by the client, through {deployment.name}",),
        ),
        *(("input", tensor_config(t, deployment.max_batch)) for t in ensemble_inputs(served, made, pixels, deployment)),
        *(
            ("output", tensor_config(triton_tensor(t, deployment), deployment.max_batch, t.name in deployment.labelled))
            for t in served.outputs
        ),
        Remark(),
        Remark("-1: the newest served version"),
        ("ensemble_scheduling", (("step", steps),)),
    )


def ensemble_inputs(
    served: ServedModel, made: ServedTensor, pixels: Shape, deployment: Deployment
) -> tuple[ServedTensor, ...]:
    """Return the pixels and the model's other inputs."""
    others = (triton_tensor(t, deployment) for t in served.inputs if t.name != made.name)
    return (ServedTensor(ensemble_pixels(served), "uint8", pixels), *others)


def triton_tensor(t: ServedTensor, deployment: Deployment) -> ServedTensor:
    """Return a tensor as Triton exposes it, with a second dimension if it has only that of the batch."""
    return ServedTensor(t.name, t.dtype, (*t.shape, 1)) if deployment.max_batch and len(t.shape) == 1 else t


def ensemble_pixels(served: ServedModel) -> str:
    """Return the ensemble's name for the pixels, different from all its other tensors."""
    name, taken = PIXELS, {t.name for t in (*served.inputs, *served.outputs)}
    while name in taken:
        name += "_"
    return name


def config_head(name: str, platform: str, most: int, about: Sequence[str]) -> Message:
    """Return the first fields of a configuration."""
    return (
        Remark(f"written by quantkit {__version__}"),
        *(Remark(text) for text in about),
        Remark(),
        ("name", name),
        ("platform", platform),
        ("max_batch_size", most),
    )


def unbatched_remark(served: ServedModel, deployment: Deployment) -> Message:
    """Return a comment on why there are no batches, if there are none."""
    return (
        (Remark(f"no batching by Triton, shapes include the batch: {served.unbatched}"),)
        if not deployment.max_batch and served.unbatched
        else ()
    )


def tensor_config(t: ServedTensor, most: int, labelled: bool = False) -> Message:
    """Return an input or output, without the batch dimension if Triton makes batches.

    ModelError if Triton does not support it.
    """
    if t.dtype not in TYPES:
        raise ModelError(
            f"{t.name!r} is {t.dtype}, which Triton does not support", remedy="export it with another type"
        )
    if not most and not t.shape:
        raise ModelError(
            f"{t.name!r} is a scalar, which Triton does not support", remedy="give it the shape [1] in the model"
        )
    dims = list(t.shape[1:] if most else t.shape)
    # Triton's dims are never empty; reshape gives the model's own shape, and may be empty only with batches.
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
    """Return the policy for which versions are served."""
    return (
        Remark(),
        Remark("the newest version is served; older ones stay on disk for a rollback"),
        ("version_policy", (("latest", (("num_versions", 1),)),)),
    )


def instance_group(deployment: Deployment, kind: str) -> Message:
    """Return how many instances run at once on each GPU."""
    why = deployment.tuning.why if deployment.tuning else f"{deployment.unmeasured}: one instance"
    return (
        Remark(),
        Remark(why),
        ("instance_group", (("count", deployment.tuning.streams if deployment.tuning else 1), ("kind", Word(kind)))),
    )


def dynamic_batching(deployment: Deployment) -> Message:
    """Return dynamic batching, unless the model takes no batches or was fastest without them."""
    alone = (
        deployment.tuning is not None and deployment.tuning.largest == 1
    )  # no batch was measured that will be served
    if (
        not deployment.max_batch
        or (alone and deployment.max_batch == 1)
        or (deployment.tuning and deployment.tuning.batch == 1 and not alone)
    ):
        return ()
    if deployment.tuning is None or alone:
        why = "batches of requests that are waiting anyway, without added delay" + (
            ", because no batches were measured" if alone else ""
        )
        return (Remark(), Remark(why), ("dynamic_batching", ()))
    return (
        Remark(),
        Remark("a request waits for a full batch no longer than such a batch takes at full load"),
        (
            "dynamic_batching",
            (
                ("preferred_batch_size", [min(deployment.tuning.batch, deployment.max_batch)]),
                ("max_queue_delay_microseconds", deployment.tuning.delay),
            ),
        ),
    )


def cuda_graphs(served: ServedModel, deployment: Deployment) -> Message:
    """Return CUDA graphs for an engine that was fastest with them."""
    if served.platform != PLAN or deployment.tuning is None or not deployment.tuning.graph:
        return ()
    return (Remark(), Remark("CUDA graphs were measured as faster"), ("optimization", (("cuda", (("graphs", True),)),)))


def accelerator_config(served: ServedModel, deployment: Deployment) -> Message:
    """Return onnxruntime's TensorRT provider, with the shapes of its profile, because it rebuilds for any other."""
    if deployment.accelerator is None:
        return ()
    parameters = {"precision_mode": deployment.precision}
    fixed = all(-1 not in t.shape[1:] for t in served.inputs)
    if deployment.max_batch and fixed:
        best = deployment.tuning.batch if deployment.tuning else deployment.max_batch
        for key, batch in (("min", 1), ("opt", min(best, deployment.max_batch)), ("max", deployment.max_batch)):
            shapes = ",".join(f"{t.name}:{'x'.join(map(str, (batch, *t.shape[1:])))}" for t in served.inputs)
            parameters[f"trt_profile_{key}_shapes"] = shapes
    why = {
        "INT8": "INT8 with the scales of the model's own Q/DQ pairs; layers without pairs run in FP32 or TF32",
        "FP16": "FP16",
        "FP32": "FP32, as the model has it",
    }[deployment.precision]
    accelerator: Message = (("name", deployment.accelerator), ("parameters", Pairs(parameters)))
    return (
        Remark(),
        Remark(f"{why}; the engine is built when the model is loaded"),
        ("optimization", (("execution_accelerators", (("gpu_execution_accelerator", accelerator),)),)),
    )


Pairs = dict[str, str]


def warmup_config(served: ServedModel, deployment: Deployment) -> Message:
    """Return warm-up requests of zeros, single and in the preferred batch, that run before the model is ready."""
    if any(t.name not in served.example_shapes for t in served.inputs):
        return (Remark(), Remark("no warm-up, because the sizes of some dimensions are unknown"))
    best = min(deployment.tuning.batch if deployment.tuning else deployment.max_batch, deployment.max_batch)
    sizes = sorted({1, best}) if deployment.max_batch else [1]
    return (
        Remark(),
        Remark("everything is built and loaded before the first request"),
        *(("model_warmup", warmup_request(served, deployment.max_batch, size)) for size in sizes),
    )


def warmup_request(served: ServedModel, most: int, batch: int) -> Message:
    """Return one warm-up request."""
    inputs: list[Any] = []
    for t in served.inputs:
        shape = served.example_shapes[t.name]
        value: Message = (
            ("data_type", Word(f"TYPE_{TYPES[t.dtype]}")),
            ("dims", list(shape[1:] if most else shape) or [1]),
            ("zero_data", True),
        )
        inputs.append((("key", t.name), ("value", value)))
    return (("name", f"zeros, batch {batch}" if most else "zeros"), ("batch_size", batch), ("inputs", inputs))
