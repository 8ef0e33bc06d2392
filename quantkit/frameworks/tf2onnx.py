"""Conversion of a TensorFlow graph or a TFLite file to ONNX by tf2onnx.

tf2onnx 1.17 is the first version that works with numpy 2 and current onnx and protobuf; it needs TensorFlow for TFLite
files too. Its own functions continue after operators that they cannot convert; here that is an error. Its names contain
a counter of the whole process, which restarts here, so that the same model gives the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.errors import BackendError, ModelError, UsageError, first_line
from quantkit.extras import install_command
from quantkit.frameworks.silence import silence

LEAST_OPSET, DEFAULT_OPSET, MOST_OPSET = 13, 17, 18
"""13 is the first with per-channel Q/DQ, 18 the newest that tf2onnx 1.17 writes; TensorRT 8.6 reads up to 17."""


@dataclass(frozen=True, slots=True)
class ConversionSource:
    """A frozen value: what tf2onnx converts, a frozen graph with its input and output tensors, or a TFLite file.

    names: tensor → name of the input or output in ONNX.
    """

    graph: Any = None
    tflite: Path | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    names: Mapping[str, str] | None = None


def require_tensorflow() -> None:
    """Raise BackendError if TensorFlow or tf2onnx is missing."""
    for name, title in (("tensorflow", "TensorFlow"), ("tf2onnx", "tf2onnx")):
        if importlib.util.find_spec(name) is None:
            raise BackendError(f"{title} is not installed", remedy=install_command("tensorflow"))


def import_tensorflow() -> Any:
    """Return the library, imported without its messages on standard error. BackendError."""
    require_tensorflow()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    with silence():
        import tensorflow as tf
    return tf


def checked_opset(opset: int | None) -> int:
    """Return the opset to write. UsageError."""
    if opset is not None and not LEAST_OPSET <= opset <= MOST_OPSET:
        raise UsageError(f"--opset {opset} is not in {LEAST_OPSET} … {MOST_OPSET}", remedy="leave --opset out")
    return opset or DEFAULT_OPSET


def convert_with_tf2onnx(
    source: ConversionSource, path: Path, opset: int, *, nchw: Sequence[str] = (), dequantize: bool = False
) -> str:
    """Write ONNX to `path`; return name and version of the converter. ModelError.

    nchw: inputs whose channels become first.
    """
    tf = import_tensorflow()
    import tf2onnx
    from tf2onnx import optimizer, tfonnx

    try:
        with restarted_name_counter(tf2onnx.utils), silence(), tf.device("/cpu:0"), tf.Graph().as_default() as graph:
            if source.graph is not None:
                tf.import_graph_def(source.graph, name="")
            made = tfonnx.process_tf_graph(
                graph,
                continue_on_error=False,
                opset=opset,
                input_names=list(source.inputs) or None,
                output_names=list(source.outputs) or None,
                inputs_as_nchw=list(nchw),
                tensors_to_rename=dict(source.names) if source.names else None,
                tflite_path=str(source.tflite) if source.tflite else None,
                dequantize=dequantize,
            )
            proto = optimizer.optimize_graph(made, catch_errors=False).make_model("network")
    except Exception as error:
        raise ModelError(
            f"tf2onnx cannot convert the model: {type(error).__name__}: {first_line(error)}",
            remedy="run python -m tf2onnx.convert on it for details; remove what ONNX has no operator for",
        ) from error
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return f"tf2onnx {tf2onnx.__version__}"


@contextlib.contextmanager
def restarted_name_counter(module: Any) -> Iterator[None]:
    """Restart tf2onnx's counter of names."""
    before = getattr(module, "INTERNAL_NAME", None)
    if before is not None:
        module.INTERNAL_NAME = 1
    try:
        yield
    finally:
        if before is not None:
            module.INTERNAL_NAME = max(before, module.INTERNAL_NAME)
