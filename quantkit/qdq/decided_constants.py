"""Tensors that constants alone decide, through any chain of operators, and their values.

    w → Identity → Conv               v, g → ReduceL2, Div, Mul → Conv (weight normalization)
    flat w → Reshape → MatMul         A, B → MatMul → Add → Gemm (low-rank updates)

Exporters leave such chains to the runtime. Q/DQ nodes end a chain: what they make is no plain constant. Nothing is
computed before its size is known, and nothing that is much larger than what it is computed from: ConstantOfShape,
Expand and Tile make gigabytes of a few numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.model import DTYPES, Model
from quantkit.graph.operators import COMMUTING, CONSTANT_FOLDING, ONNX_DOMAINS
from quantkit.graph.shape_inference import FEW_BYTES
from quantkit.graph.weights import stored_tensors, stored_values

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

FREE_BYTES = 1 << 20
"""Results up to this size may be computed from anything."""
MOST_GROWTH = 4
"""Largest size of a result relative to the constants that it is computed from: int8 becomes float32."""
MOST_WORK = 16
"""Bytes that may be computed in all, relative to the stored ones."""
MOST_NODES = 20_000
"""Operators that are computed at most: a minute."""
MOST_PRODUCTS = 1 << 36
"""Largest number of multiplications in one operator: half a minute."""
LARGEST_ITEM = 16
"""Bytes of the largest type of ONNX, a complex number."""
FAILURES = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError, MemoryError)
"""What ONNX's evaluator raises for nodes that are not valid, or that it does not support."""


@dataclass(frozen=True, slots=True)
class DecidedConstants:
    """The constants of a graph.

    stored: those whose values are in the file. makers: decided tensor → its operator, in graph order. roots: decided
    tensor → the stored one that its operators pass on, if all of them change its form alone. bytes: decided tensor →
    size of what it is computed from.
    """

    model: Model
    stored: Mapping[str, onnx.TensorProto]
    makers: Mapping[str, onnx.NodeProto]
    roots: Mapping[str, str]
    bytes: Mapping[str, int]

    def chain(self, names: Iterable[str]) -> set[str]:
        """Return tensors with everything that they are computed from."""
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            if name and name not in seen:
                seen.add(name)
                if name in self.makers:
                    waiting.extend(self.makers[name].input)
        return seen

    def values(self, names: Iterable[str]) -> dict[str, Array]:
        """Return the values of decided tensors, without those that would be too large or cannot be computed.

        ModelError if a stored tensor is damaged.
        """
        wanted = list(names)
        needed = self.chain(wanted)
        most = MOST_WORK * max(sum(map(stored_bytes, self.stored.values())), FREE_BYTES)
        found: dict[str, Array] = {}
        for node in distinct_nodes(self.makers, needed)[:MOST_NODES]:
            inputs = {name: found[name] if name in found else self._stored(name) for name in node.input if name}
            if any(array is None for array in inputs.values()):
                continue
            known = {name: array for name, array in inputs.items() if array is not None}
            room = min(most, FREE_BYTES + MOST_GROWTH * sum(array.nbytes for array in known.values()))
            made = compute_node(node, known, self.model.opset, room)
            most -= sum(array.nbytes for array in made.values())
            found.update(made)
        return {name: found[name] for name in wanted if name in found}

    def is_passed_on(self, name: str) -> bool:
        """Return whether only Identity nodes lie between a stored tensor and this one."""
        while name in self.makers and self.makers[name].op_type == "Identity":
            name = self.makers[name].input[0]
        return name in self.stored

    def equals(self, source: str, array: Array) -> bool:
        """Return whether a stored tensor has the type, the shape and, bit for bit, the values of an array."""
        tensor = self.stored[source]
        if tuple(tensor.dims) != array.shape or DTYPES.get(tensor.data_type) != array.dtype.name:
            return False
        stored = self._stored(source)
        return stored is not None and stored.tobytes() == array.tobytes()

    def _stored(self, name: str) -> Array | None:
        try:
            return stored_values(self.model, self.stored, name)
        except ValueError as error:
            raise ModelError(
                f"{self.model.path}: weight {name!r} is damaged: {error}", remedy="export the model again"
            ) from None


@dataclass(frozen=True, slots=True)
class FoldedConstants:
    """Decided tensors as plain constants. values: new ones; aliases: tensor → the constant with the same values."""

    values: Mapping[str, Array]
    aliases: Mapping[str, str]

    @property
    def names(self) -> set[str]:
        """All tensors that need no operator any more."""
        return {*self.values, *self.aliases}


def fold_decided(decided: DecidedConstants, names: Iterable[str]) -> FoldedConstants:
    """Return decided tensors as plain constants, without those that would make the model much larger.

    A tensor that holds the values of a stored one, or of an earlier one, is its alias. ModelError if a stored tensor is
    damaged.
    """
    names = list(names)
    aliases = {name: decided.roots[name] for name in names if decided.is_passed_on(name)}
    computed = decided.values(name for name in names if name not in aliases)
    room = MOST_GROWTH * sum(map(stored_bytes, decided.stored.values())) + FREE_BYTES
    values: dict[str, Array] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, array in computed.items():
        root = decided.roots.get(name, "")
        key = (array.dtype, array.shape, sha256(np.ascontiguousarray(array).data).digest())
        same = root if root and decided.equals(root, array) else first.get(key)
        if same is not None:
            aliases[name] = same
        elif array.nbytes <= min(room, MOST_GROWTH * decided.bytes[name] + FREE_BYTES):
            room -= array.nbytes
            values[name] = array
            first[key] = name
    return FoldedConstants(values, aliases)


def find_decided(model: Model) -> DecidedConstants:
    """Find the tensors of the main graph that constants alone decide."""
    graph = model.proto.graph
    hidden = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    stored = {name: tensor for name, tensor in stored_tensors(graph).items() if name not in hidden}
    sizes = {name: stored_bytes(tensor) for name, tensor in stored.items()}
    everything = sum(sizes.values())
    makers: dict[str, onnx.NodeProto] = {}
    roots: dict[str, str] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not inputs or not is_foldable(node) or any(name not in sizes for name in inputs):
            continue
        first = inputs[0]
        for name in filter(None, node.output):
            makers[name] = node
            sizes[name] = min(sum(sizes[each] for each in inputs), everything)
            if node.op_type in COMMUTING and (first in stored or first in roots):
                roots[name] = roots.get(first, first)
    return DecidedConstants(model, stored, makers, roots, {name: sizes[name] for name in makers})


def is_foldable(node: onnx.NodeProto) -> bool:
    """Return whether an operator gives the same result each time. Dropout with more inputs may be in training mode."""
    known = node.op_type in CONSTANT_FOLDING and node.domain in ONNX_DOMAINS
    return known and (node.op_type != "Dropout" or len(node.input) < 3)


def distinct_nodes(makers: Mapping[str, onnx.NodeProto], names: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the operators that make some tensors, each once and in graph order."""
    wanted = set(names)
    return list({id(node): node for name, node in makers.items() if name in wanted}.values())


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Return the size of a stored tensor in bytes; an upper bound for packed types."""
    from onnx import helper

    known = tensor.data_type in helper.get_all_tensor_dtypes()
    item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize if known else LARGEST_ITEM
    return int(prod(tensor.dims) * item)


def compute_node(node: onnx.NodeProto, inputs: Mapping[str, Array], opset: int, room: int) -> dict[str, Array]:
    """Return the results of an operator; nothing if they need more than `room` bytes, are unknown, or it is not valid.

    Results are exact where values are only moved; elsewhere they may differ from a runtime's in the last bit.
    """
    from onnx.reference import ReferenceEvaluator

    single = node_model(node, inputs, opset)
    if not fits(single, room) or products(node, inputs) > MOST_PRODUCTS:
        return {}
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(single).run(None, dict(inputs))
    except FAILURES:
        return {}
    names = [name for name in node.output if name]
    arrays: list[Any] = list(results)
    if not all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        return {}
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def node_model(node: onnx.NodeProto, inputs: Mapping[str, Array], opset: int) -> onnx.ModelProto:
    """Return a model of one operator; small inputs have values, so that the shape of its results can be inferred."""
    from onnx import TypeProto, helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [helper.make_value_info(name, TypeProto()) for name in node.output if name],
        [numpy_helper.from_array(array, name) for name, array in inputs.items() if array.nbytes < FEW_BYTES],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def fits(single: onnx.ModelProto, room: int) -> bool:
    """Return whether the shapes of all results are known, and they need at most `room` bytes."""
    from onnx import helper, shape_inference

    try:
        inferred = shape_inference.infer_shapes(single, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError, MemoryError):
        return False
    for value in inferred.graph.output:
        tensor = value.type.tensor_type
        known = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        if not known or tensor.elem_type not in DTYPES:
            return False
        room -= prod(d.dim_value for d in tensor.shape.dim) * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return room >= 0


def products(node: onnx.NodeProto, inputs: Mapping[str, Array]) -> int:
    """Return an upper bound of the multiplications that a matrix product takes; 0 for other operators."""
    if node.op_type not in ("MatMul", "Gemm"):
        return 0
    first, second = (inputs[name] for name in node.input[:2])
    return int(first.size * max(second.shape, default=1))
