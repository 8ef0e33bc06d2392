"""Refusals of the compiler in words that name the remedy: what TensorRT-RTX's parser and builder say, by pattern.

The texts are NVIDIA's, read off version 1.7.1; a text without a pattern is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantkit.backends.tensorrt_rtx.kernel_log import UNNAMED, node_name
from quantkit.view import shorten_middle

LONGEST = 300
FIX = "quantkit lint --fix MODEL"
AGAIN = "make the Q/DQ model again from the float network: quantkit quantize"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A network that the compiler does not take, for one architecture.

    node, operator: where; empty if the compiler does not say. problem, remedy: in quantkit's words. text: NVIDIA's.
    """

    architecture: str
    node: str
    operator: str
    problem: str
    remedy: str
    text: str

    @property
    def short_text(self) -> str:
        """NVIDIA's text, shortened."""
        return shorten_middle(self.text, LONGEST)

    @property
    def place(self) -> str:
        """The node and its operator, for messages; of a node in a subgraph the compiler may say the operator alone."""
        return f"{self.operator} {self.node}".strip() or "the network"


PATTERNS: tuple[tuple[str, str, str], ...] = (
    (r"[Nn]on-zero zero point", "a zero point other than 0", AGAIN),
    (
        r"[Ss]cale coefficients must all be positive|scale.*(?:positive|negative|zero)",
        "a scale that is not positive",
        AGAIN,
    ),
    (
        r"input has type Int32 but must have type|DequantizeLinear.*[Ii]nt32",
        "an int32 bias behind DequantizeLinear, which TensorRT keeps in float",
        FIX,
    ),
    (
        r"fp8_e4m3|FP8.*not supported|target.*fp8",
        "FP8, which this architecture does not have",
        "use sm89 or newer: --for sm89",
    ),
    (
        r"Quantized constant \(.*\) is only allowed",
        "a stored INT8 tensor that something else than DequantizeLinear reads",
        FIX,
    ),
    (
        r"Found unsupported input type",
        "a type that TensorRT does not quantize to",
        FIX,
    ),
    (
        r"Failed to (?:import|convert).*initializer",
        "a stored tensor of a type that TensorRT does not read",
        "store weights as float32, float16 or int8",
    ),
    (
        r"^false$|Plugin not found|No importer registered|[Uu]nsupported operator|checkFallbackPluginImporter",
        "an operator that TensorRT does not have, or has as a plugin only",
        "replace the operator in the export; plugins cannot be compiled for another machine",
    ),
    (
        r"[Oo]pset.*(?:not supported|unsupported)|supports? opset",
        "an opset that TensorRT does not read",
        "export with opset 13 … 21",
    ),
    (
        r"number of scales is not equal|[Ii]nvalid (?:channel )?axis|axis.*(?:out of (?:range|bounds)|must be)",
        "scales that do not fit the axis of their tensor",
        AGAIN,
    ),
    (
        r"Failed to convert ONNX da\w+ type",
        "a type that TensorRT does not have",
        "leave what computes in strings or complex numbers out of the export",
    ),
    (
        r"Failed to add input",
        "an input that TensorRT does not take",
        "give it a shorter name, of at most 4096 bytes",
    ),
    (
        r"has no runners that implement it",
        "an operator for which the compiler has no kernel here",
        "leave it out of the export, and compute it on the host",
    ),
    (
        r"Error Code 1: Myelin|MyelinCheckException|Error Code \d+: Internal Error",
        "an internal error of the compiler",
        "compile parts of the network to find the one; networks with If and Loop are known to fail",
    ),
    (
        r"missing values for shape input",
        "an input whose values are the shape of another tensor",
        "fix that shape in the export, so that it is no input",
    ),
    (
        r"IOptimizationProfile|optimization profile|profile index",
        "shapes of the inputs that contradict each other",
        "give shapes that fit together: --shapes INPUT=SHAPE",
    ),
    (
        r"out ?of ?memory|bad_alloc|[Ff]ailed to allocate",
        "more memory than the compiler may use",
        "give it more: --memory 64G",
    ),
)
LAYER = re.compile(r"\bI\w+Layer (?P<layer>\S+): |failed\. (?P<other>\S+) has no runners")
"""A layer in the text of an error that names no node otherwise."""


def refusal_of(fields: Mapping[str, str], architecture: str, nodes: Mapping[str, str]) -> Refusal:
    """Return the refusal for what the compiler says: `node`, `operator`, `text`. nodes: as in `kernels_in`."""
    text = " ".join(fields["text"].split())
    found = next(((words, remedy) for pattern, words, remedy in PATTERNS if re.search(pattern, text)), None)
    problem, remedy = found or (shorten_middle(text, LONGEST), "export that part of the network in another way")
    return Refusal(architecture, node_in(fields, text, nodes), fields["operator"], problem, remedy, text)


def node_in(fields: Mapping[str, str], text: str, nodes: Mapping[str, str]) -> str:
    """Return the node that an error is about: the parser's, else one of the network that the text names; or nothing."""
    if fields["node"] or not (found := LAYER.search(text)):
        return node_name(fields["node"], nodes)
    layer = found["layer"] or found["other"]
    known = {name: name for name in nodes.values()} | {f"{UNNAMED}{tensor}": name for tensor, name in nodes.items()}
    return known.get(layer) or known.get(re.sub(r"_\d+$", "", layer), "")
