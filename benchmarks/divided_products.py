"""Products that attention takes apart, undivided and divided, as TensorRT-RTX compiles them. Writes its result file.

    python benchmarks/divided_products.py [--shared DIR]

The network is vit of DIR, with INT8 weights in the file; `float_part` is the type of what is not INT8. No GPU is
needed.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from harness.qdq_networks import CIFAR, samples_of

import quantkit
from quantkit.backends.tensorrt_rtx.compiling import compile_network, require_compiler
from quantkit.backends.tensorrt_rtx.static_shapes import static_shapes
from quantkit.graph import load_model
from quantkit.quantization import quantize as quantizing

RESULT = Path(__file__).resolve().parent / "results" / "divided_products.json"
NETWORK, ARCHITECTURE, MIB = CIFAR[2], "sm86", 1 << 20


def compiled(path: Path) -> dict[str, Any]:
    """What the compiler makes of a model, in figures."""
    model = load_model(path)
    network = compile_network(model, static_shapes(model.inputs), architecture=ARCHITECTURE)
    products = network.products
    return {
        "kernels": len(network.running),
        "products": len(products),
        "int8_products": sum(kernel.int8 for kernel in products),
        "mib_moved": network.bytes / MIB,
    }


def main() -> None:
    """Quantize, compile, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    shared = parser.parse_args().shared
    model = shared / "models" / f"{NETWORK}.onnx"
    found: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        data, preprocess = samples_of(NETWORK, model, shared, folder)
        made = quantkit.calibrate(model, data, preprocess=preprocess, limit=16, output=folder / "vit.calib")
        for part, fp16 in (("FP32", False), ("FP16", True)):
            divide = quantizing.divide_products
            quantizing.divide_products = lambda model: (model.proto, ())
            try:
                undivided = quantkit.quantize(model, statistics=made.statistics, tensorrt_version="11", fp16=fp16)
            finally:
                quantizing.divide_products = divide
            divided = quantkit.quantize(model, statistics=made.statistics, tensorrt_version="11", fp16=fp16)
            for kind, proto in (("undivided", undivided.proto), ("divided", divided.proto)):
                onnx.save(proto, folder / f"{kind}.onnx")
                found.setdefault(part, {})[kind] = compiled(folder / f"{kind}.onnx")
    document = {
        "date": date.today().isoformat(),
        "compiler": f"TensorRT-RTX {require_compiler()} for {ARCHITECTURE}",
        "network": NETWORK,
        "float_part": found,
    }
    RESULT.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
