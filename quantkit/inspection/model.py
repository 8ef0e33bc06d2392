"""The verb inspect: what a model contains, and which tensors a calibration would observe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from quantkit.graph import AnyModel, Watch, load_model, watched_tensors
from quantkit.graph.model import node_name
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.preprocess import metadata_preprocess
from quantkit.qdq.float_reason import FloatReason
from quantkit.qdq.weighted_operators import unreachable_operators, weighted_operators
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class Inspection(RichDisplay):
    """A frozen value: a model at a glance.

    bytes_per_sample: size of the observed activations, None if their shapes are unknown. nodes: name, as `--exclude`
    takes it, and operator of each node, in graph order, without nodes that are folded into weights.
    """

    path: str
    sha256: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    watch: Watch
    bytes_per_sample: int | None
    preprocess: str | None
    fixed_batch: int | None
    nodes: tuple[tuple[str, str], ...] = ()
    weighted: int = 0
    """Operators with weights, those inside others too."""
    stay_float: Mapping[str, FloatReason] = field(default_factory=dict)
    """Those of them that quantkit cannot quantize wherever they are, with the reason."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Remarks about what is not looked at."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.stay_float.items():
            by_reason.setdefault(reason.summary, []).append(name)
        return (
            *(f"not observed: {reason}" for reason in self.watch.unwatched.values()),
            *(
                f"{len(names)} of {self.weighted} operators with weights stay float, {reason}: {shorten_names(names)}"
                for reason, names in by_reason.items()
            ),
        )

    def _view_(self) -> Sequence[Block]:
        memory = self.bytes_per_sample
        rows = [
            ("inputs", ", ".join(self.inputs)),
            ("outputs", ", ".join(self.outputs)),
            ("batch", "dynamic" if self.fixed_batch is None else f"fixed at {self.fixed_batch}"),
            ("operators", ", ".join(f"{count} {name}" for name, count in self.operators.items())),
            ("observed", f"{len(self.watch.tensors)} float tensors"),
            ("activations", "depends on the input size" if memory is None else f"{memory / 2**20:,.1f} MiB per sample"),
            ("preprocess", self.preprocess or ""),
        ]
        shown = [row for row in rows if row[1]]
        return (
            f"{Path(self.path).name}, opset {self.opset}",
            ViewTable(("part", "content"), shown, frozenset({0, 1})),
            Remarks(self.warnings),
        )


def inspect(model: AnyModel) -> Inspection:
    """Return what an ONNX model contains, and which tensors a calibration would observe. ModelError."""
    loaded = load_model(model)
    watch = watched_tensors(loaded)
    shapes: dict[str, tuple[int, ...]] | None = {}
    for i in loaded.inputs:
        if shapes is None or not all(isinstance(d, int) for d in i.shape[1:]):
            shapes = None
            break
        first = i.shape[0] if i.shape and isinstance(i.shape[0], int) else 1
        shapes[i.name] = (first, *(d for d in i.shape[1:] if isinstance(d, int)))
    found = shapes_for_inputs(loaded, watch.tensors, shapes) if shapes is not None else {"": None}
    known = [prod(shape) for shape in found.values() if shape is not None]
    fixed = next((i.fixed_batch for i in loaded.inputs if i.fixed_batch is not None), None)
    batch = fixed or 1
    spec = metadata_preprocess(loaded.metadata)
    return Inspection(
        path=str(loaded.path),
        sha256=loaded.sha256,
        opset=loaded.opset,
        inputs=tuple(i.describe() for i in loaded.inputs),
        outputs=loaded.outputs,
        operators=dict(Counter(node.op_type for node in loaded.proto.graph.node).most_common()),
        watch=watch,
        bytes_per_sample=4 * sum(known) // batch if len(known) == len(found) else None,
        preprocess=spec.describe() if spec else None,
        fixed_batch=fixed,
        nodes=tuple((node_name(node), node.op_type) for node in fold_batch_norms(loaded).proto.graph.node),
        weighted=len(weighted_operators(loaded.proto)),
        stay_float=unreachable_operators(loaded.proto),
    )


def shorten_names(names: Sequence[str]) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
