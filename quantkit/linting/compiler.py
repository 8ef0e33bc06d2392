"""Findings of NVIDIA's compiler, TensorRT-RTX, and where it does not agree with the rules.

    compiler-refuses   error      the parser or the compiler refuses the network, and says where
    float-kernel       slow       an operator with Q/DQ on both inputs that is computed in float nevertheless
    compiler-accepts   disputed   a rule finds an error that the compiler does not mind

TensorRT-RTX is of the TensorRT 11 generation, and not TensorRT itself: the rules also know what 8.6 and 10 reject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantkit.backends.tensorrt_rtx.architectures import DEFAULT_ARCHITECTURES, check_architectures
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.compiling import Compilation, require_compiler, try_compile
from quantkit.backends.tensorrt_rtx.refusals import Refusal
from quantkit.backends.tensorrt_rtx.static_shapes import chosen_shapes, static_shapes
from quantkit.graph.model import Model, node_name
from quantkit.linting.finding import Finding
from quantkit.qdq.layer_counts import operator_types
from quantkit.qdq.weighted_operators import weighted_operators

REFUSES, FLOAT_KERNEL, ACCEPTS = "compiler-refuses", "float-kernel", "compiler-accepts"
NO_INT8_KERNEL = {
    "ConvTranspose": "TensorRT-RTX has no INT8 kernel for it: exclude it from quantization",
}
"""Operators that no form of Q/DQ makes INT8 there (measured with 1.7.1)."""


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """Architectures that a network is compiled for, and its shapes as `build --shapes` takes them."""

    architectures: tuple[str, ...] = DEFAULT_ARCHITECTURES
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompilerReport:
    """The outcome of compiling a network. chosen: sizes of inputs that nobody gave; findings: see the module."""

    version: str
    networks: tuple[CompiledNetwork, ...]
    refusals: tuple[Refusal, ...]
    chosen: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The outcome in words, one line for each architecture."""
        name = f"TensorRT-RTX {self.version}"
        made = [f"{name} compiles it for {n.architecture}: {compiled_text(n)}" for n in self.networks]
        refused = sorted({refusal.architecture for refusal in self.refusals})
        chosen = [f"sizes chosen for it: {', '.join(self.chosen)} (--shapes gives others)"] if self.chosen else []
        return (*made, *(f"{name} refuses it for {architecture}" for architecture in refused), *chosen)


def compiled_text(network: CompiledNetwork) -> str:
    """Return a compiled network in one clause."""
    products = network.products
    counts = {kind: sum(kernel.multiplies_in(kind) for kernel in products) for kind in ("INT8", "FP8")}
    parts = [f"{count} of {len(products)} kernels that multiply are {kind}" for kind, count in counts.items() if count]
    return f"{', '.join(parts) or f'0 of {len(products)} kernels that multiply are INT8'}, {network.seconds:.1f} s"


def check_request(model: Model, request: CompileRequest) -> None:
    """Raise UsageError for unknown architectures or shapes, BackendError where TensorRT-RTX is missing."""
    require_compiler()
    check_architectures(request.architectures)
    static_shapes(model.inputs, request.shapes)


def compare_with_compiler(
    model: Model, found: Sequence[Finding], request: CompileRequest, stage: Callable[[str], None] = lambda _: None
) -> CompilerReport:
    """Compile the file of a model and compare the outcome with the findings of the rules.

    UsageError for unknown architectures or shapes; BackendError where TensorRT-RTX is missing or exceeds a limit.
    """
    shapes = static_shapes(model.inputs, request.shapes)
    made = try_compile(model, shapes, architectures=request.architectures, stage=stage)
    findings = (*refused(made, found), *accepted(made, found), *float_kernels(model, made.networks))
    return CompilerReport(
        made.version, made.networks, made.refusals, chosen_shapes(model.inputs, request.shapes), findings
    )


def refused(made: Compilation, found: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the refusals as findings; one that a rule explains is confirmed, not repeated."""
    explained = {finding.where for finding in found if finding.severity == "error"}
    for refusal in made.refusals:
        if refusal.node in explained or (not refusal.node and explained):
            continue
        problem = f"TensorRT-RTX {made.version} refuses it for {refusal.architecture}: {refusal.problem}"
        if refusal.text != refusal.problem:
            problem += f" ({refusal.short_text})"
        yield Finding(REFUSES, "error", refusal.node or refusal.place, problem, refusal.remedy)


def accepted(made: Compilation, found: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the errors of rules that the compiler does not mind, once for each rule."""
    if made.refusals or not made.networks:
        return
    errors = {finding.rule: finding for finding in reversed(found) if finding.severity == "error"}
    for rule in sorted(errors):
        places = sum(finding.rule == rule for finding in found)
        yield Finding(
            ACCEPTS,
            "disputed",
            errors[rule].where,
            f"{rule} ({places}) is an error by quantkit's rules, but TensorRT-RTX {made.version} compiles the network",
            "fix it all the same: other versions of TensorRT reject it, or compute something else",
        )


def float_kernels(model: Model, networks: Sequence[CompiledNetwork]) -> Iterator[Finding]:
    """Yield the operators that are INT8 or FP8 according to Q/DQ, but not in the compiled networks."""
    type_of = operator_types(model)
    for operator in weighted_operators(model.proto):
        name = node_name(operator.node)
        wanted = type_of(operator.node)
        if wanted is None:
            continue
        kernels = [(n.architecture, kernel) for n in networks if (kernel := n.by_node.get(name)) is not None]
        wrong = [(architecture, kernel) for architecture, kernel in kernels if not kernel.multiplies_in(wanted.name)]
        if wrong:
            kernel = wrong[0][1]
            types = " by ".join(kernel.operands) if kernel.multiplies else "float"
            where = ", ".join(architecture for architecture, _ in wrong)
            yield Finding(
                FLOAT_KERNEL,
                "slow",
                name,
                f"{operator.node.op_type} has Q/DQ on both inputs, but TensorRT-RTX multiplies {types} ({where})",
                NO_INT8_KERNEL.get(operator.node.op_type, "quantkit compile shows the kernels around it"),
            )
