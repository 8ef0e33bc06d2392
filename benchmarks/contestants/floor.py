"""The floor: onnxruntime with default options and every float activation a graph output.

Nothing is done with them. This is what looking at every tensor costs before any statistics, for
whoever looks at whole batches of 32.
"""

from __future__ import annotations

import onnx
import onnxruntime

from contestants.images import Images
from contestants.job import job


def watch_everything(model: onnx.ModelProto) -> None:
    """Add every float tensor that a node computes (constants left out) to the graph's outputs."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name: value for value in inferred.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    graph = model.graph
    computed = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    present = {value.name for value in graph.output}
    graph.output.extend(floats[name] for name in computed if name in floats.keys() - present)


def main() -> None:
    """Run every batch once."""
    task = job()
    model = onnx.load(task.model)
    watch_everything(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in Images(task):
        session.run(None, batch)


if __name__ == "__main__":
    main()
