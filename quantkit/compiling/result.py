"""The result of `compile`: compiled networks side by side, estimates, and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.backends.tensorrt_rtx.architectures import ARCHITECTURES
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.refusals import Refusal
from quantkit.compiling.gpus import GPUS
from quantkit.compiling.kernel_rows import HEAD, FloatDetour, count_kinds, float_detours, kernel_rows
from quantkit.compiling.options import MIB
from quantkit.compiling.roofline import LAUNCH, TRUST, WARNING, Estimate
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

CAVEAT = (
    "TensorRT-RTX is a parser and compiler of the TensorRT 11 generation, not TensorRT itself. It fixes which kernels "
    "there are, what they read and write, and in which types; how they are implemented is decided on the GPU. For "
    "TensorRT-RTX, NVIDIA promises INT8 weights only, not INT8 products."
)


@dataclass(frozen=True, slots=True)
class CompiledVariant:
    """One of the networks that were compiled. name: for tables; kind: `model`, or how it differs from the model.

    networks: one for each architecture. estimates: one for each GPU. operations: of a whole inference; None if unknown.
    """

    name: str
    kind: str
    networks: tuple[CompiledNetwork, ...]
    estimates: tuple[Estimate, ...] = ()
    operations: int | None = None

    @property
    def unknown(self) -> int:
        """The number of products whose operations are not known, in the estimate that has the most."""
        return max((found.unknown for found in self.estimates), default=0)

    def network(self, architecture: str) -> CompiledNetwork | None:
        """Return the network for an architecture."""
        return next((found for found in self.networks if found.architecture == architecture), None)

    def estimate(self, gpu: str) -> Estimate | None:
        """Return the estimate for a GPU."""
        return next((found for found in self.estimates if found.gpu == gpu), None)


@dataclass(frozen=True, slots=True)
class CompiledModel(RichDisplay):
    """A model that was compiled, beside the networks that it is compared with.

    variants: the model first; empty if it was refused everywhere. pairs: names of its Q/DQ nodes. gpus: estimated.
    saved: architecture → engine that was written. record: the file with the kernels.
    """

    path: Path
    version: str
    shapes: Mapping[str, tuple[int, ...]]
    variants: tuple[CompiledVariant, ...]
    refusals: tuple[Refusal, ...] = ()
    gpus: tuple[str, ...] = ()
    pairs: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    saved: Mapping[str, Path] = field(default_factory=dict)
    record: Path | None = None

    @property
    def networks(self) -> tuple[CompiledNetwork, ...]:
        """The model's networks, one for each architecture."""
        return self.variants[0].networks if self.variants else ()

    @property
    def shapes_text(self) -> str:
        """The shapes of the inputs as text."""
        return "; ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in self.shapes.items())

    def detours(self, network: CompiledNetwork) -> list[FloatDetour]:
        """Return where values of a network go from INT8 through float memory to INT8."""
        return float_detours(network, self.pairs)

    def comparison_rows(self) -> list[tuple[str, ...]]:
        """Return a row of figures for each variant and architecture."""
        return [
            (
                variant.name, network.architecture, f"{len(network.running)}", products_text(network),
                f"{network.bytes / MIB:.2f}", f"{network.engine_bytes / MIB:.2f}", f"{network.seconds:.1f}",
            )
            for architecture in [network.architecture for network in self.networks]
            for variant in self.variants
            if (network := variant.network(architecture)) is not None
        ]  # fmt: skip

    def estimate_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each GPU and variant: milliseconds, its parts, and the ratio to the model's time."""
        rows: list[tuple[str, ...]] = []
        for key in self.gpus:
            first = self.variants[0].estimate(key)
            for variant in self.variants:
                found = variant.estimate(key)
                if found is None or first is None:
                    continue
                rows.append(
                    (
                        gpu_text(key), variant.name, f"{found.milliseconds:.3f}", f"{found.compute:.3f}",
                        f"{found.memory:.3f}", f"{found.launch:.3f}",
                        ratio_text(found.milliseconds, first.milliseconds),
                    )
                )  # fmt: skip
        return rows

    def _view_(self) -> Sequence[Block]:
        blocks: list[Block] = [f"{self.path.name}, {self.shapes_text}: TensorRT-RTX {self.version}"]
        refused = [(r.architecture, r.place, r.problem, r.remedy) for r in self.refusals]
        blocks.append(ViewTable(("for", "where", "refused", "remedy"), refused, frozenset(range(4))))
        if self.variants:
            network = self.networks[0]
            blocks.append(f"{architecture_text(network.architecture)}: {count_kinds(network)}")
            blocks.append(ViewTable(HEAD, kernel_rows(network, self.pairs), frozenset({0, 1, 2, 3, 5})))
            blocks.append(ViewTable(COMPARED, self.comparison_rows(), frozenset({0, 1, 3})))
            if rows := self.estimate_rows():
                blocks.append(f"{WARNING}:")
                blocks.append(ViewTable(ESTIMATED, rows, frozenset({0, 1})))
        trust = [TRUST, *(GPUS[key].figures for key in self.gpus)] if self.estimate_rows() else []
        return (*blocks, Remarks([*self.notes, *trust, CAVEAT]))


COMPARED = ("network", "for", "kernels", "INT8 products", "MiB moved", "MiB engine", "s")
ESTIMATED = ("GPU", "network", "ms", "compute", "memory", "launch", "ratio")


def products_text(network: CompiledNetwork) -> str:
    """Return how many products are INT8: `21 of 22`; those in FP8 with their type: `FP8 21 of 22`."""
    int8, fp8 = sum(kernel.int8 for kernel in network.products), sum(kernel.fp8 for kernel in network.products)
    parts = [f"{int8} of {len(network.products)}"] if int8 or not fp8 else []
    return ", ".join([*parts, *([f"FP8 {fp8} of {len(network.products)}"] if fp8 else [])])


def architecture_text(name: str) -> str:
    """Return an architecture with GPUs that have it: `sm86 (Ampere: A10, …)`."""
    return f"{name} ({ARCHITECTURES[name]})"


def ratio_text(time: float, first: float) -> str:
    """Return the ratio of two times; a dash for a network without kernels."""
    return f"{time / first:.2f}" if first else "–"


def gpu_text(key: str) -> str:
    """Return the name of a GPU, with the architecture whose kernels stand for it if it is another."""
    gpu = GPUS[key]
    return f"{gpu.name}, by {gpu.architecture}" if gpu.nearest else gpu.name


def compiled_document(result: CompiledModel) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "model": str(result.path),
        "compiler": f"TensorRT-RTX {result.version}",
        "shapes": {name: list(shape) for name, shape in result.shapes.items()},
        "refusals": [
            {
                "architecture": refusal.architecture, "node": refusal.node, "operator": refusal.operator,
                "problem": refusal.problem, "remedy": refusal.remedy, "text": refusal.text,
            }
            for refusal in result.refusals
        ],
        "variants": [variant_document(result, variant) for variant in result.variants],
        "estimate": {
            "note": WARNING,
            "trust": TRUST,
            "launch_microseconds": LAUNCH,
            "gpus": {
                key: {
                    "name": GPUS[key].name, "kernels_of": GPUS[key].architecture, "peaks": dict(GPUS[key].peaks),
                    "bandwidth": GPUS[key].bandwidth, "sources": list(GPUS[key].sources),
                }
                for key in result.gpus
            },
        },
        "notes": [*result.notes, CAVEAT],
        "saved": {name: str(path) for name, path in result.saved.items()},
        "record": str(result.record) if result.record else None,
    }  # fmt: skip


def variant_document(result: CompiledModel, variant: CompiledVariant) -> dict[str, Any]:
    """Return a variant for programs; the model's kernels are listed, and of the others their number."""
    return {
        "name": variant.name,
        "kind": variant.kind,
        "operations": variant.operations,
        "networks": [network_document(result, network, variant.kind == "model") for network in variant.networks],
        "estimates": [
            {
                "gpu": found.gpu, "milliseconds": found.milliseconds, "compute": found.compute,
                "memory": found.memory, "launch": found.launch, "unknown_products": found.unknown,
            }
            for found in variant.estimates
        ],
    }  # fmt: skip


def network_document(result: CompiledModel, network: CompiledNetwork, whole: bool) -> dict[str, Any]:
    """Return a compiled network for programs. whole: with its kernels and detours."""
    found: dict[str, Any] = {
        "architecture": network.architecture,
        "seconds": network.seconds,
        "engine_bytes": network.engine_bytes,
        "activation_bytes": network.activation_bytes,
        "weight_bytes": network.weight_bytes,
        "kernels": len(network.running),
        "kinds": network.kinds,
        "products": len(network.products),
        "int8_products": sum(kernel.int8 for kernel in network.products),
        "int8_share": network.int8_share,
        "fp8_products": sum(kernel.fp8 for kernel in network.products),
        "bytes": network.bytes,
    }
    if whole:
        detours = result.detours(network)
        found["float_detours"] = [
            {"writer": d.writer, "reader": d.reader, "type": d.type, "bytes": d.bytes} for d in detours
        ]
        found["kernel_list"] = [
            kernel.model_dump(mode="json")
            | {"bytes": kernel.bytes, "multiplies": kernel.multiplies, "int8": kernel.int8, "fp8": kernel.fp8}
            for kernel in network.running
        ]
    return found
