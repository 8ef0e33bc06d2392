"""The kernels in the log that TensorRT-RTX's compiler writes at severity VERBOSE with detailed profiling names.

A line of the log, shortened:

    Name: K, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,4,32,32], Strides: […], StrideOrder: […],
    Datatype: Int8, Format: (NHWC) Channel major format }], Constants: […], Outputs: […], TacticName: T, StreamId: 0,
    Metadata: [ONNX Layer: a]\x1f[ONNX Layer: b]

The format is not documented; read off version 1.7.1. A kernel whose line does not fit is an error, not left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from quantkit.backends.tensorrt_rtx.compiled import Kernel, KernelTensor
from quantkit.errors import BackendError
from quantkit.view import shorten_middle

MARK = ", LayerType: "
LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<reads>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<writes>.*?)\]"
    r"(?:, (?P<rest>(?:TacticName|ParameterType): .*))?",
    re.DOTALL,
)
TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[-\d,]*)\], .*?Datatype: (?P<type>\w+)"
    r"(?:, Format: (?P<format>.*?))? \}(?=, \{ |\]?$)",
    re.DOTALL,
)
TACTIC = re.compile(r"TacticName: (.*?)(?:, StreamId: |, Metadata: |$)", re.DOTALL)
NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1f|\x1e|\[ONNX Layer: |\s*$)", re.DOTALL)
MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")
TYPES: Mapping[str, str] = {
    "Float": "FP32", "Half": "FP16", "BFloat16": "BF16", "Double": "FP64", "Int8": "INT8", "UInt8": "UINT8",
    "Int32": "INT32", "Int64": "INT64", "Bool": "BOOL", "Int4": "INT4", "Fp8": "FP8", "Fp4": "FP4",
}  # fmt: skip
UNNAMED = "node_of_"
"""Prefix of the name that the parser gives to a node without one; the name of its first output follows."""


def kernels_in(lines: Iterator[str], nodes: Mapping[str, str] | None = None) -> tuple[Kernel, ...]:
    """Return the kernels in the lines of a log. BackendError if a line does not have the known form.

    nodes: first output of a node → its name, for nodes that have none in the file.
    """
    return tuple(kernel_in(line, nodes or {}) for line in lines if line.startswith("Name: ") and MARK in line)


def kernel_in(line: str, nodes: Mapping[str, str]) -> Kernel:
    """Return the kernel in one line. BackendError if it does not have the known form."""
    if not (found := LINE.fullmatch(line)):
        raise unknown_form(line)
    rest = found["rest"] or ""
    head, _, metadata = rest.partition("Metadata: ")
    tactic = TACTIC.search(head)
    return Kernel(
        name=found["name"],
        kind=found["kind"],
        nodes=tuple(dict.fromkeys(node_name(text, nodes) for text in NODE.findall(metadata))),
        reads=tensors_in(found["reads"], line),
        constants=tensors_in(found["constants"] or "", line),
        writes=tensors_in(found["writes"], line),
        tactic=tactic[1].rstrip(", ") if tactic else "",
    )


def tensors_in(text: str, line: str) -> tuple[KernelTensor, ...]:
    """Return the tensors in the list of a line. BackendError if one does not have the known form."""
    found = tuple(TENSOR.finditer(text.strip()))
    if len(found) != text.count("{ Name: "):
        raise unknown_form(line)
    return tuple(
        KernelTensor(
            name=tensor["name"],
            shape=tuple(int(size) for size in tensor["shape"].split(",") if size),
            type=TYPES.get(tensor["type"], tensor["type"]),
            format=tensor["format"] or "",
        )
        for tensor in found
    )


def node_name(text: str, nodes: Mapping[str, str]) -> str:
    """Return a node's name in the network for its name in the log."""
    return nodes.get(text.removeprefix(UNNAMED), text) if text.startswith(UNNAMED) else text


def memory_in(lines: Iterator[str]) -> Mapping[str, int]:
    """Return the bytes of `Activation` and `Weights` memory that a log states."""
    return {found[1]: int(found[2]) for line in lines if (found := MEMORY.match(line))}


def unknown_form(line: str) -> BackendError:
    """Return the error for a kernel that this version of quantkit cannot read."""
    return BackendError(
        f"TensorRT-RTX describes a kernel in a form that quantkit does not know: {shorten_middle(line, 160)}",
        remedy="pip install 'tensorrt-rtx-cu13==1.7.1.116', whose form is known",
    )
