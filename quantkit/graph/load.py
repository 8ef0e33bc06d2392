"""Opening of a model, in the one form that all verbs work on.

    in the file                              in the model that is opened
    local functions                          their nodes (quantkit.graph.functions)
    weights that are inputs as well          weights alone: their values are in the file, and nobody feeds them
    IR version below 4                       IR 4: with weights alone, older ones have no meaning
    one opset twice                          once
    nodes in any order                       every node behind those whose tensors it reads
    several nodes of one name                names that are unique, also in subgraphs

The identity of a model is that of its file, so that it does not depend on any of these.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from quantkit.errors import ModelError, UsageError
from quantkit.graph.functions import inline_functions
from quantkit.graph.identity import external_files, model_identity
from quantkit.graph.model import IN_MEMORY, Model, ReadFile, default_opset, node_name, weight_names, weights_folder
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.opset import LEAST_IR
from quantkit.graph.shape_inference import element_types, infer_types, tensor_shapes
from quantkit.graph.subgraphs import all_graphs, all_nodes, subgraphs
from quantkit.paths import given_path
from quantkit.regular_file import FileStamp, read_regular, stamp_of

if TYPE_CHECKING:
    import onnx

AnyModel: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | Model"
"""A model as callers give it: its path, an `onnx.ModelProto`, or one that was opened already."""
LARGEST = (1 << 31) - 1
"""Bytes of an ONNX file: protocol buffers allow no more; larger networks keep their weights in other files."""
DAMAGED = "export the model again"
GIVE_MODEL = "give the path of an ONNX model"


def load_model(given: AnyModel) -> Model:
    """Return a model that is read from a file, or held by the caller as an `onnx.ModelProto`, which is not changed.

    ModelError if it is missing, is not an ONNX model, or lacks external weights; UsageError for another type.
    """
    if isinstance(given, Model):
        return given
    if is_proto(given):
        return open_model(copied_proto(given), IN_MEMORY)
    file = model_place(given)
    own = file_stamps(file.parent, [file.name])  # before it is read
    model = open_model(read_proto(file), file)
    return replace(model, read=replace(model.read, own=own))


def is_proto(value: object) -> bool:
    """Return True for an `onnx.ModelProto`; does not load onnx, without which there is none."""
    onnx = sys.modules.get("onnx")
    return onnx is not None and isinstance(value, onnx.ModelProto)


def model_place(given: AnyModel) -> Path:
    """Return the path of a model's file, or the one that stands for a model in memory. UsageError."""
    if isinstance(given, Model):
        return given.path
    if is_proto(given):
        return IN_MEMORY
    if is_proto(getattr(given, "proto", None)):
        raise UsageError(f"the model is of type {type(given).__name__}, not a path", remedy="give its network: .proto")
    return given_path(given, "the model", kinds="a str, a pathlib.Path or an onnx.ModelProto")


def copied_proto(given: Any) -> onnx.ModelProto:
    """Return a copy of a model in memory. ModelError if it leaves its weights in files, whose folder is unknown."""
    if names := external_files(given):
        raise ModelError(
            f"the model in memory has weights in files: {', '.join(names[:3])}",
            remedy="give the path of the model, or load them with onnx.load_external_data_for_model(model, FOLDER)",
        )
    proto = type(given)()
    proto.CopyFrom(given)
    return proto


def read_proto(file: Path) -> onnx.ModelProto:
    """Return the content of an ONNX file. ModelError if it is missing, or is no ONNX model."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(read_regular(file, most=LARGEST), format="protobuf")
    except DecodeError:
        raise ModelError(f"{file} is not an ONNX model, or is truncated", remedy=GIVE_MODEL) from None
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}", remedy=GIVE_MODEL) from None


def open_model(proto: onnx.ModelProto, file: Path) -> Model:
    """Return a model in the one form that all verbs work on; changes `proto`. ModelError."""
    remedy = GIVE_MODEL
    if proto.opset_import and not proto.graph.node:
        raise ModelError(f"{file} has no operators", remedy=remedy)
    if not proto.opset_import:
        raise ModelError(f"{file} is not an ONNX model: it holds no graph", remedy=remedy)
    if not proto.graph.output:
        raise ModelError(f"{file} has no outputs, so it computes nothing", remedy=DAMAGED)
    if not holds_text(proto):
        raise ModelError(f"{file} is damaged: one of its names is not text", remedy=remedy)
    folder = weights_folder(file, proto)
    stamps = file_stamps(folder, external_files(proto))
    identity = model_identity(proto, folder, str(file))
    settle_opsets(proto, str(file))
    plain = inline_functions(proto, str(file))
    drop_listed_weights(plain)
    refuse_missing_operands(plain, str(file))
    sort_nodes(plain.graph, str(file))
    refuse_giant_tensors(plain, str(file))
    return Model(file, plain, identity, make_names_unique(plain.graph), ReadFile(identity, stamps))


def refuse_giant_tensors(proto: onnx.ModelProto, where: str) -> None:
    """Raise ModelError if a tensor, by its shape, is larger than the memory of this machine.

    A few bytes can ask for one (ConstantOfShape, Expand, Tile, Range), and onnxruntime makes it while it loads.
    """
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    graph = infer_types(proto).graph
    types = element_types(graph)
    for name, shape in tensor_shapes(graph).items():
        sizes = [size for size in shape if size is not None]
        item = 8 if types.get(name, "").endswith("64") else 4
        if len(sizes) == len(shape) and prod(sizes) * item > memory:
            raise ModelError(
                f"{where}: tensor {name!r} has {prod(sizes):,} values, which exceeds the memory of this machine",
                remedy="export the model with smaller shapes",
            )


def file_stamps(folder: Path, names: Iterable[str]) -> tuple[FileStamp, ...]:
    """Return the stamps of a model's files; a file that is missing, which is no error yet, has none."""
    stamps = []
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            stamps.append(stamp_of(folder / name, name))
    return tuple(stamps)


def refuse_changed_weights(model: Model) -> None:
    """Raise ModelError where the external weights of a model are no longer those that were digested when it was read.

    They are read whenever they are needed, also by other libraries: what was used is what was digested only if they
    did not change in between. Models in memory pass.
    """
    if not has_same_weights(model):
        refuse_other_content(model)


def refuse_changed_model(model: Model) -> None:
    """Raise ModelError where the file of a model, or its external weights, are no longer those that were read."""
    own = model.read.own
    if not own or file_stamps(model.path.parent, [model.path.name]) != own or not has_same_weights(model):
        refuse_other_content(model)


def has_same_weights(model: Model) -> bool:
    """Return True if no stamp of the external weights moved since they were digested."""
    stamps = model.read.weights
    return file_stamps(model.folder, [stamp.name for stamp in stamps]) == stamps


def refuse_other_content(model: Model) -> None:
    """Raise ModelError unless the file still holds what was read: a copy or a link may have moved a stamp."""
    if load_model(model.path).sha256 != model.read.sha256:
        raise changed_model(model.path)


def changed_model(path: Path) -> ModelError:
    """Return the error for a model, or its weights, that changed while it was in use."""
    return ModelError(f"{path} changed during the run", remedy="start again when nothing writes to it any more")


def holds_text(proto: onnx.ModelProto) -> bool:
    """Return whether every name is UTF-8; protobuf hands out others as bytes, or refuses them.

    Remarks of exporters in another encoding are removed, in place: nothing depends on them.
    """
    import onnx

    pending: list[Any] = [proto]
    try:
        while pending:
            message = pending.pop()
            if isinstance(message, onnx.TensorProto):  # not its values, which may be large
                pending.extend(message.external_data)
                fields = [(message.DESCRIPTOR.fields_by_name["name"], message.name)]
            else:
                fields = message.ListFields()
            for field, value in fields:
                several = value if hasattr(value, "append") else [value]
                if field.type == field.TYPE_MESSAGE:
                    pending.extend(several)
                elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in several):
                    if field.name != "doc_string":
                        return False
                    message.ClearField(field.name)
    except UnicodeDecodeError:
        return False
    return True


def refuse_missing_operands(proto: onnx.ModelProto, where: str) -> None:
    """Raise ModelError where an operator of ONNX has no opset, or fewer inputs or outputs than its definition has."""
    opset = default_opset(proto)
    for node in all_nodes(proto.graph):
        if node.domain not in ONNX_DOMAINS:
            continue
        if not opset:
            raise ModelError(
                f"{where}: {node.op_type} {node_name(node)!r} is of ONNX's opset, but the file names none",
                remedy=DAMAGED,
            )
        least = least_operands(node.op_type, opset)
        if len(node.input) < least[0] or len(node.output) < least[1]:
            raise ModelError(
                f"{where}: node {node_name(node)!r} ({node.op_type}) has {len(node.input)} inputs and "
                f"{len(node.output)} outputs, but the operator has at least {least[0]} and {least[1]}",
                remedy=DAMAGED,
            )


@cache
def least_operands(operator: str, opset: int) -> tuple[int, int]:
    """Return the least numbers of inputs and outputs of an operator of ONNX; 0 for one that is unknown."""
    from onnx import defs

    try:
        schema = defs.get_schema(operator, opset, "")
    except (defs.SchemaError, TypeError):
        return 0, 0
    return schema.min_input, schema.min_output


def drop_listed_weights(proto: onnx.ModelProto) -> None:
    """Remove weights from the lists of inputs, in place. Exporters before IR 4 had to list them, but not all did."""
    proto.ir_version = max(proto.ir_version, LEAST_IR)
    weights = weight_names(proto.graph)
    kept = [value for value in proto.graph.input if value.name not in weights]
    if len(kept) < len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)


def settle_opsets(proto: onnx.ModelProto, where: str) -> None:
    """Leave one version of every opset, in place. ModelError where it is unclear which.

    ONNX reads the highest, onnxruntime the last.
    """
    versions: dict[str, list[int]] = {}
    for opset in proto.opset_import:
        versions.setdefault("" if opset.domain in ONNX_DOMAINS else opset.domain, []).append(opset.version)
    for domain, found in versions.items():
        if found[-1] != max(found):
            named = " and ".join(map(str, dict.fromkeys(found)))
            raise ModelError(f"{where}: it has versions {named} of the opset {domain or 'ai.onnx'}", remedy=DAMAGED)
    if len(versions) < len(proto.opset_import):
        del proto.opset_import[:]
        for domain, found in versions.items():
            proto.opset_import.add(domain=domain, version=found[-1])


def sort_nodes(graph: onnx.GraphProto, where: str) -> None:
    """Sort the nodes of a graph and of its subgraphs, in place, so that tensors are made before they are read.

    Nodes that are in such an order stay in it. ModelError if they run in a circle, if two nodes make one tensor, or if
    nothing makes a tensor that a node reads.
    """
    check_names(graph, frozenset(), where)
    for part in all_graphs(graph):
        order = node_order(part, where)
        if order != sorted(order):
            nodes = [part.node[number] for number in order]
            sorted_nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
            del part.node[:]
            part.node.extend(sorted_nodes)


def check_names(graph: onnx.GraphProto, outside: frozenset[str], where: str) -> None:
    """Raise ModelError if a tensor of a graph, or of a subgraph, is there twice or made by nothing.

    outside: the tensors that are visible around the graph.
    """
    weights = Counter(weight.name for weight in graph.initializer)
    if twice := [name for name, count in weights.items() if count > 1]:
        raise ModelError(f"{where}: there are two weights {twice[0]!r}", remedy=DAMAGED)
    made = {value.name for value in graph.input} | weight_names(graph)
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                raise ModelError(f"{where}: two nodes make the tensor {name!r}", remedy=DAMAGED)
            made.add(name)
    visible = outside | made
    for node in graph.node:
        missing = next((name for name in node.input if name and name not in visible), None)
        if missing is not None:
            raise ModelError(
                f"{where}: {node.op_type} {node_name(node)!r} reads {missing!r}, which nothing makes", remedy=DAMAGED
            )
        for inner in (part for attribute in node.attribute for part in subgraphs(attribute)):
            check_names(inner, visible, where)
    lost = next((value.name for value in graph.output if value.name not in visible), None)
    if lost is not None:
        raise ModelError(f"{where}: nothing makes the output {lost!r}", remedy=DAMAGED)


def node_order(graph: onnx.GraphProto, where: str) -> list[int]:
    """Return the numbers of the nodes in an order in which tensors are made before they are read. ModelError."""
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    before = [{makers[name] for name in names_from_outside(node) if name in makers} for node in graph.node]
    behind: dict[int, list[int]] = {}
    for number, needed in enumerate(before):
        for other in needed:
            behind.setdefault(other, []).append(number)
    left = [len(needed) for needed in before]
    ready = [number for number, count in enumerate(left) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for number in behind.get(order[-1], ()):
            left[number] -= 1
            if not left[number]:
                heapq.heappush(ready, number)
    if len(order) < len(left):
        number = next(number for number, count in enumerate(left) if count)
        raise ModelError(f"{where}: the nodes around {node_name(graph.node[number])!r} form a circle", remedy=DAMAGED)
    return order


def names_from_outside(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, itself or in its subgraphs, without those that are made in there."""
    names = set(node.input)
    for inner in (part for attribute in node.attribute for part in subgraphs(attribute)):
        read = {value.name for value in inner.output}.union(*map(names_from_outside, inner.node))
        names |= read - made_names(inner)
    return names


def made_names(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that a graph has of its own: inputs, weights, and outputs of its nodes."""
    made = {value.name for value in graph.input} | weight_names(graph)
    return made.union(*(node.output for node in graph.node))


def make_names_unique(graph: onnx.GraphProto) -> Mapping[str, str]:
    """Give every node a name that no other has, in place; return new name → name in the file.

    A second `/conv` becomes `/conv_2`. onnxruntime refuses equal names, and every report is by name.
    """
    nodes = list(all_nodes(graph))
    names = [node_name(node) for node in nodes]
    taken, seen, changed = set(names), Counter[str](), {}
    for node, name in zip(nodes, names, strict=True):
        seen[name] += 1
        if seen[name] > 1:
            while f"{name}_{seen[name]}" in taken:
                seen[name] += 1
            node.name = f"{name}_{seen[name]}"
            taken.add(node.name)
            changed[node.name] = name
    return changed
