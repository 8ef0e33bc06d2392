"""What NVIDIA's compiler makes of five networks and one of ResNet-50's size: Q/DQ beside FP16, without a GPU.

    python benchmarks/compile.py [NETWORK…] [--shared DIR]

Writes results/compile.json and results/compile.md. Networks are Q/DQ models of `quantize` without options, at batch 1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.machine import this_machine
from harness.qdq_networks import RESNET50, qdq_model

from quantkit import compile as compile_model
from quantkit.backends.tensorrt_rtx.compiling import require_compiler
from quantkit.compiling.counterparts import FLOAT_NETWORK, FLOAT_PART
from quantkit.compiling.options import MIB, CompileOptions
from quantkit.compiling.result import CompiledModel, CompiledVariant

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS = ("resnet20", "mobilenetv2", "vit", "ultraface", "yolov8n", RESNET50)
ARCHITECTURES = ("sm86", "sm120")
KINDS = {"model": "qdq", FLOAT_PART: "qdq_fp16", FLOAT_NETWORK: "fp16"}
"""What differs from the model → its key in the JSON."""
LABELS = {"qdq": "Q/DQ", "qdq_fp16": "Q/DQ, float part in FP16", "fp16": "FP16"}
HEAD = "| network | for | | kernels | INT8 products | MiB moved | MiB float detours | MiB engine | compile s |"


def figures(result: CompiledModel, variant: CompiledVariant, architecture: str) -> dict[str, Any]:
    """The figures of a compiled network."""
    network = variant.network(architecture)
    assert network is not None
    detours = result.detours(network)
    return {
        "kernels": len(network.running),
        "kinds": network.kinds,
        "products": len(network.products),
        "int8_products": sum(kernel.int8 for kernel in network.products),
        "float_operands": sum("FP32" in kernel.operands for kernel in network.products),
        "mib_moved": round(network.bytes / MIB, 2),
        "detours": len(detours),
        "mib_detours": round(sum(detour.bytes for detour in detours) / MIB, 2),
        "engine_bytes": network.engine_bytes,
        "weight_bytes": network.weight_bytes,
        "seconds": round(network.seconds, 2),
    }


def measured(network: str, shared: Path, folder: Path) -> dict[str, Any]:
    """The figures of a network: architecture → variant → figures."""
    model = qdq_model(network, shared, folder)
    result = compile_model(model, options=CompileOptions(architectures=ARCHITECTURES))
    assert not result.refusals, result.refusals
    return {
        "shapes": result.shapes_text,
        "operations": result.variants[0].operations,
        "notes": list(result.notes),
        "networks": {
            name: {KINDS[variant.kind]: figures(result, variant, name) for variant in result.variants}
            for name in ARCHITECTURES
        },
    }


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine = content["machine"]
    lines = [
        "# What TensorRT-RTX compiles",
        "",
        f"{content['compiler']}, {content['date']}, {machine['cpu']}, {machine['cores']} cores, no GPU; batch 1.",
        "Made by `benchmarks/compile.py`. Bytes are those that all kernels read and write; a float detour is a value",
        "that goes from INT8 through float memory to INT8. Nothing here was timed on a GPU. The compiler shared its",
        "cores with other work, so that its seconds are upper bounds.",
        "",
        HEAD,
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for network, found in content["cases"].items():
        for architecture, variants in found["networks"].items():
            for variant, f in variants.items():
                cells = (
                    network, architecture, LABELS[variant], f"{f['kernels']}",
                    f"{f['int8_products']} of {f['products']}",
                    f"{f['mib_moved']:.2f}", f"{f['mib_detours']:.2f}", f"{f['engine_bytes'] / MIB:.2f}",
                    f"{f['seconds']:.1f}",
                )  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compile, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    cases = {}
    with TemporaryDirectory() as folder:
        for network in arguments.networks:
            cases[network] = measured(network, arguments.shared, Path(folder))
            print(network, json.dumps(cases[network]["networks"]["sm86"]), flush=True)
    content = {
        "date": date.today().isoformat(),
        "machine": asdict(this_machine()),
        "compiler": f"TensorRT-RTX {require_compiler()}",
        "cases": cases,
    }
    (RESULTS / "compile.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (RESULTS / "compile.md").write_text(page(content), encoding="utf-8")


if __name__ == "__main__":
    main()
