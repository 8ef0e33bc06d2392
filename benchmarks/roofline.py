"""The roofline estimate of `quantkit compile` beside every engine that we timed on an H200.

    python benchmarks/roofline.py [--shared DIR] [--again]

Compiles each network that was timed, as it was timed, with TensorRT-RTX for SM89 (it has no SM90), estimates it for an
H200, and writes results/roofline.json. No GPU is needed; measured times are those in gpu_acceptance.json, deployment/
and front.json. Q/DQ engines were allowed FP16 beside INT8, so that their float part is FP16 here.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.qdq_networks import BUNDLED, CIFAR, RESNET50, float_model, qdq_model
from scipy.stats import kendalltau, spearmanr

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.compiling import compile_network, require_compiler
from quantkit.compiling.counterparts import in_fp16
from quantkit.compiling.gpus import GPUS
from quantkit.compiling.operations import count_operations
from quantkit.compiling.options import CompileOptions, input_shapes
from quantkit.compiling.roofline import LAUNCH, estimate_network
from quantkit.graph import load_model
from quantkit.graph.model import node_name

RESULTS = Path(__file__).resolve().parent / "results"
GPU = GPUS["h200"]
LAUNCHES = (0.0, 1.0, 2.5, 5.0, 10.0)
"""Launch times in microseconds that the correlation is also computed for."""
LEFT_OUT = {
    "engines from a calibration table": "TensorRT 8.6 chooses precisions layer by layer; this compiler takes no tables",
    "modelopt's Q/DQ models": "they are not in the repository; their times are those of quantkit's within 2 %",
    "weights behind Identity": "the same network as the plain one after folding",
    "placement.json": "networks that timm exports; their files are not in the repository",
}
"""Engines that were timed and have no estimate, and why."""
FLOATS = {"fp32": ("fp32", "FP32"), "tf32": ("fp32", "TF32"), "fp16": ("fp16", "TF32")}
"""Precision of an engine → the network that is compiled, and the type in which it multiplies float32."""
INT8_WEIGHTS = {
    "qdq": "quantkit, INT8 weights",
    "qdq, first convolution float": "quantkit, INT8 weights, first convolution float",
}
"""Variant → the engine of a Q/DQ model whose file holds INT8 weights; TensorRT 8.6 does not build those of vit."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured time: network, variant, batch, and where it stands."""

    network: str
    variant: str
    batch: int
    file: str
    place: str


def timed() -> Iterator[Timed]:
    """Every engine that was timed and can be compiled."""
    for network in (*CIFAR, "ultraface"):
        for batch in (1, 32, 256) if network in CIFAR else (1,):
            for variant in FLOATS:
                place = f"{network}/figures/engines/{variant}/latency_ms/{batch}/graph"
                yield Timed(network, variant, batch, "gpu_acceptance.json", place)
            for variant in (*FLOATS, "qdq"):
                subject = f"subject={network}.{variant}.engine,batch={batch},graph=True"
                yield Timed(network, variant, batch, f"deployment/{network}.json", f"bench/latencies/{subject}/median")
    for network in CIFAR:
        for batch in (1, 32, 256):
            engines = {"fp16": ("explicit", "fp16"), "qdq": ("explicit", "quantkit")}
            if network == "vit":
                engines["qdq, attention too"] = ("explicit", "quantkit, attention too")
            for variant, (section, engine) in engines.items():
                place = f"{section}/figures/{network}/{engine}/latency_ms/{batch}/graph"
                yield Timed(network, variant, batch, "gpu_acceptance.json", place)
            for variant, engine in INT8_WEIGHTS.items() if network != "vit" else ():
                place = f"explicit variants/figures/{network}/{engine}/latency_ms/{batch}/graph"
                yield Timed(network, variant, batch, "gpu_acceptance.json", place)
    for batch in (1, 32):
        for variant, engine in (("fp16", "FP16, plain"), ("qdq", "Q/DQ, plain")):
            place = f"constants/figures/behind a node/{engine}/latency_ms/{batch}/graph"
            yield Timed(RESNET50, variant, batch, "gpu_acceptance.json", place)
    for variant, engine in (("fp32", "model.fp32"), ("fp16", "model.fp16"), ("qdq", "model.tuned.int8")):
        yield Timed(BUNDLED, variant, 32, "front.json", f"front/name={engine}.engine/milliseconds")


def measured_at(file: str, place: str) -> float:
    """The time at a place of a result file; parts `key=value,…` pick an entry of a list."""
    found: Any = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    rest = place
    while rest:
        if isinstance(found, list):
            part, _, rest = rest.partition("/")
            wanted = dict(pair.split("=") for pair in part.split(","))
            (found,) = (entry for entry in found if all(str(entry[key]) == value for key, value in wanted.items()))
        else:  # names have slashes in them
            part = next(key for key in sorted(found, key=len, reverse=True) if f"{rest}/".startswith(f"{key}/"))
            found, rest = found[part], rest[len(part) + 1 :]
    return float(found)


class Compiled:
    """The compiled networks, each compiled once."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self.shared, self.folder = shared, folder
        self.files: dict[tuple[str, str], Path] = {}
        self.found: dict[tuple[str, str, int], tuple[CompiledNetwork, dict[str, int | None]]] = {}

    def file(self, network: str, variant: str) -> Path:
        """The ONNX file of a variant."""
        if (network, variant) not in self.files:
            path = float_model(network, self.shared, self.folder)
            if variant == "fp32":
                self.files[network, variant] = path
            else:
                if variant != "fp16":
                    first = node_name(next(n for n in load_model(path).proto.graph.node if n.op_type == "Conv"))
                    placement = {"qdq, attention too": {"include": ("MatMul",)},
                                 "qdq, first convolution float": {"exclude": (first,)}}.get(variant, {})  # fmt: skip
                    path = qdq_model(network, self.shared, self.folder, variant.replace(" ", ""), **placement)
                half = self.folder / f"{path.stem}.half.onnx"
                assert in_fp16(load_model(path), half, variant).model is not None
                self.files[network, variant] = half
        return self.files[network, variant]

    def network(self, network: str, variant: str, batch: int) -> tuple[CompiledNetwork, dict[str, int | None]]:
        """A compiled network, and the operations of its nodes."""
        key = network, variant, batch
        if key not in self.found:
            model = load_model(self.file(network, variant))
            fixed = not any(not isinstance(i.shape[0], int) for i in model.inputs)
            shapes = input_shapes(CompileOptions(batch=None if fixed else batch), model.inputs)
            made = compile_network(model, shapes, architecture=GPU.architecture)
            self.found[key] = made, count_operations(model, shapes)
            print(f"{network} {variant} batch {batch}: {made.seconds:.1f} s", flush=True)
        return self.found[key]


def with_fused_results(network: CompiledNetwork) -> CompiledNetwork:
    """The network as if INT8 products quantized their results themselves, as TensorRT's engines do.

    A kernel that reads the float result of a product, which nothing else reads, and writes INT8 becomes part of it.
    """
    kernels = {kernel.name: kernel for kernel in network.running}
    readers = Counter(tensor.name for kernel in network.running for tensor in kernel.reads)
    for writer, tensor, reader in network.round_trips():
        first, second = kernels.get(writer.name), kernels.get(reader.name)
        if first and second and writer.int8 and not reader.multiplies and readers[tensor.name] == 1:
            others = tuple(read for read in second.reads if read.name != tensor.name)
            both = {"constants": first.constants + second.constants, "writes": second.writes}
            kernels[writer.name] = first.model_copy(update=both | {"reads": first.reads + others})
            del kernels[reader.name]
    return network.model_copy(update={"kernels": tuple(kernels.values())})


def case(one: Timed, compiled: Compiled) -> dict[str, Any]:
    """A measured time beside its estimate."""
    variant, float32 = FLOATS.get(one.variant, (one.variant, "TF32"))
    network, operations = compiled.network(one.network, variant, one.batch)
    found = estimate_network(network, operations, GPU, float32=float32)
    fused = estimate_network(with_fused_results(network), operations, GPU, float32=float32)
    return {
        "network": one.network, "variant": one.variant, "batch": one.batch, "file": one.file, "place": one.place,
        "measured": measured_at(one.file, one.place), "estimated": found.milliseconds, "compute": found.compute,
        "memory": found.memory, "launch": found.launch, "kernels": len(network.running),
        "unknown": found.unknown, "fused": fused.milliseconds,
    }  # fmt: skip


def correlation(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Rank correlations of (measured, estimated), and how far estimates are off: the median of measured/estimated."""
    measured, estimated = zip(*pairs, strict=True)
    ratios = sorted(m / e for m, e in pairs)
    return {
        "cases": len(pairs),
        "spearman": float(spearmanr(measured, estimated).statistic),
        "kendall": float(kendalltau(measured, estimated).statistic),
        "median_ratio": ratios[len(ratios) // 2],
    }


def speedups(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """FP16's time over Q/DQ's, measured and estimated; both were timed in one run."""
    found = []
    for one in cases:
        if not one["variant"].startswith("qdq"):
            continue
        same = {key: one[key] for key in ("network", "batch", "file")}
        near = [c for c in cases if c["variant"] == "fp16" and same.items() <= c.items()]
        section = one["place"].split("/")[0]
        half = next((c for c in near if c["place"].split("/")[0] == section.removesuffix(" variants")), near[0])
        measured, estimated, fused = (half[key] / one[key] for key in ("measured", "estimated", "fused"))
        found.append(
            {
                "network": one["network"], "variant": one["variant"], "batch": one["batch"], "section": section,
                "measured": measured, "estimated": estimated, "fused": fused,
                "agree": (measured > 1) == (estimated > 1),
            }
        )  # fmt: skip
    return found


def ratio_correlation(faster: list[dict[str, Any]], key: str = "estimated") -> dict[str, Any]:
    """The correlation of speedups, and for how many the estimate tells right whether INT8 is the faster one."""
    right = sum((one["measured"] > 1) == (one[key] > 1) for one in faster)
    return correlation([(one["measured"], one[key]) for one in faster]) | {"agree": right}


def with_launch(one: dict[str, Any], microseconds: float) -> float:
    """The estimate with another launch time."""
    return float(one["compute"] + one["memory"] + one["launch"] * microseconds / LAUNCH)


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The correlations, over all cases and parts of them, and of the speed of INT8 over FP16."""
    batches = sorted({c["batch"] for c in cases})
    parts = {"all": cases} | {f"batch {b}": [c for c in cases if c["batch"] == b] for b in batches}
    parts |= {name: [c for c in cases if c["network"] == name] for name in CIFAR}
    faster = speedups(cases)
    return {
        "latency": {n: correlation([(c["measured"], c["estimated"]) for c in part]) for n, part in parts.items()},
        "latency_fused": correlation([(c["measured"], c["fused"]) for c in cases]),
        "launch": {f"{us:g}": correlation([(c["measured"], with_launch(c, us)) for c in cases]) for us in LAUNCHES},
        "speedup": ratio_correlation(faster),
        "speedup_fused": ratio_correlation(faster, "fused"),
        "speedup_by_batch": {str(b): ratio_correlation([s for s in faster if s["batch"] == b]) for b in batches},
    }


def compiled_cases(shared: Path) -> list[dict[str, Any]]:
    """Every measured time beside its estimate."""
    with TemporaryDirectory() as folder:
        compiled = Compiled(shared, Path(folder))
        return [case(one, compiled) for one in timed()]


def main() -> None:
    """Compile, estimate, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--again", action="store_true", help="compute the correlations again, without compiling")
    arguments = parser.parse_args()
    path = RESULTS / "roofline.json"
    if arguments.again:
        content = json.loads(path.read_text(encoding="utf-8"))
    else:
        gpu = {"name": GPU.name, "peaks": dict(GPU.peaks), "bandwidth": GPU.bandwidth, "sources": list(GPU.sources)}
        content = {
            "date": date.today().isoformat(),
            "compiler": f"TensorRT-RTX {require_compiler()} for {GPU.architecture}",
            "gpu": gpu,
            "launch_microseconds": LAUNCH,
            "left_out": LEFT_OUT,
            "cases": compiled_cases(arguments.shared),
        }
    content |= {"summary": summary(content["cases"]), "speedups": speedups(content["cases"])}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
