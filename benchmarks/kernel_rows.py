"""A GPU profile from engines that were timed layer by layer: of whole networks, and of chains (`kernels.py`).

    python benchmarks/kernel_rows.py FOLDER CHAINS.json -o results/kernels-h200-trt8.6.json

FOLDER holds NETWORK.json.gz: the float network, and of FP16 and Q/DQ engines the milliseconds of each layer and of all,
at every batch size. CHAINS.json is what kernels.py wrote. A layer counts where it runs exactly one operator
with weights in both engines; the price of the profiler's events is what the layers take together beyond the engine.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from quantkit.gpu_profile.operator_size import OperatorSize, operator_size
from quantkit.gpu_profile.profile import BorderTime, FormTime, GpuProfile, OperatorTime, write_profile
from quantkit.gpu_profile.rows import CONVERSIONS, branch_times, form_rows
from quantkit.graph import Model
from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.operators import WEIGHTED
from quantkit.graph.shape_inference import shapes_for_inputs

SEPARATORS = re.compile(r" \+ |PWN\(|\)|, |\(|\|\|")
LEAST = 0.5
"""Microseconds of the smallest kernel, where the profiler's price would leave less of a layer."""
Sizes = dict[OperatorSize, list[tuple[float, float]]]


def network_rows(document: Mapping[str, Any]) -> Iterator[tuple[OperatorSize, float, float]]:
    """Yield every operator that has a layer of its own in both engines, with its microseconds in FP16 and in INT8."""
    proto = onnx.ModelProto.FromString(gzip.decompress(base64.b64decode(document["graphs"]["float"])))
    model, wires = Model(Path("network.onnx"), proto, ""), index_graph(proto)
    names = [name for node in wires.nodes for name in (*node.input, *node.output) if name]
    for batch in document["batches"]:
        inputs = {i.name: [batch, *[d.dim_value for d in i.type.tensor_type.shape.dim][1:]] for i in proto.graph.input}
        shapes = shapes_for_inputs(model, names, inputs)
        times = [engine_times(document["kinds"][kind], str(batch), wires) for kind in ("fp16", "qdq")]
        for number in times[0].keys() & times[1].keys():
            size = operator_size(wires, number, shapes, curved=False)
            if size is not None:
                yield size, times[0][number], times[1][number]


def engine_times(engine: Mapping[str, Any], batch: str, wires: GraphIndex) -> dict[int, float]:
    """Return node → microseconds of the layer that runs it and no other weighted operator, with a MaxPool behind it.

    Layers that compute in float although there are pairs around them (a Dequantize of their weights) are left out.
    """
    layers = engine["profile"][batch]
    price = price_of_events(engine, batch)
    found: dict[int, float] = {}
    for name, milliseconds in layers:
        if name.startswith("Reformatting") or "weight_Dequantize" in name:
            continue
        parts = set(SEPARATORS.split(name))
        inside = [n for n, node in enumerate(wires.nodes) if node.name in parts]
        weighted = [n for n in inside if wires.nodes[n].op_type in WEIGHTED]
        own = max(LEAST, 1000 * milliseconds - price)
        if len(weighted) == 1:
            found[weighted[0]] = own
        elif len(inside) == 1 and wires.nodes[inside[0]].op_type == "MaxPool":
            number = wires.makers[wires.nodes[wires.makers[wires.nodes[inside[0]].input[0]]].input[0]]
            if number in found:
                found[number] += own
    return found


def price_of_events(engine: Mapping[str, Any], batch: str) -> float:
    """Return the microseconds that the profiler adds to each layer."""
    layers = [milliseconds for _, milliseconds in engine["profile"][batch] if milliseconds > 0]
    return max(0.0, 1000 * (sum(layers) - engine["graph"][batch]["median"]) / len(layers))


def quantizing_rows(engines: list[dict[str, Any]]) -> list[BorderTime]:
    """Return what Q in front of a convolution takes, from chains. The convolution behind INT8 writes FP16 itself."""
    found: dict[int, list[float]] = defaultdict(list)
    for engine in engines:
        for branch, step, words, _, milliseconds, *_ in engine["layers"]:
            kinds = set(words.split("+"))
            if branch is None or not (kinds <= CONVERSIONS and "quantizelinear" in kinds) or not milliseconds:
                continue
            chain = engine["branches"][branch]
            if step == 1 and chain["kind"] != "stem":
                values = chain["batch"] * chain["channels"] * chain["size"] ** 2
                found[values].append(1000 * (milliseconds - engine["overhead"]))
    return [
        BorderTime(values=values, quantize=round(max(0.0, median(times)), 2), dequantize=0.0)
        for values, times in sorted(found.items())
    ]


def main() -> None:
    """Write the profile."""
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("chains", type=Path)
    options.add_argument("-o", "--output", type=Path, required=True)
    options.add_argument("--date", default=date.today().isoformat())
    given = options.parse_args()
    sizes: Sizes = defaultdict(list)
    level = 0
    for path in sorted(given.folder.glob("*.json.gz")):
        document = json.loads(gzip.decompress(path.read_bytes()))
        if {"fp16", "qdq"} <= document["kinds"].keys():
            level = document["level"]
            for size, fp16, int8 in network_rows(document):
                sizes[size].append((fp16, int8))
    chains = json.loads(given.chains.read_text())
    rows = [
        OperatorTime(
            kind=size.kind.value, inputs=size.inputs, outputs=size.outputs, rows=size.rows, kernel=float(size.kernel),
            stride=size.stride, width=size.width, curved=size.curved,
            fp16=round(median(a for a, _ in times), 2), int8=round(median(b for _, b in times), 2),
        )
        for size, times in sizes.items()
    ]  # fmt: skip
    forms: list[FormTime] = form_rows(branch_times(chains["engines"]))
    profile = GpuProfile(
        gpu=chains["gpu"], compute_capability=chains["compute_capability"], tensorrt=chains["tensorrt"],
        date=given.date, level=level, operators=tuple(rows), borders=tuple(quantizing_rows(chains["engines"])),
        forms=tuple(forms),
    )  # fmt: skip
    write_profile(profile, given.output)
    print(f"{len(rows)} operators, {len(profile.borders)} borders, {len(forms)} forms")


if __name__ == "__main__":
    main()
