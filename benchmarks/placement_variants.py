"""Variants of a placement, built and timed side by side on a GPU: the evidence for a rule of the default placement.

    python benchmarks/placement_variants.py FOLDER NETWORK:VARIANT,VARIANT… … [--output DIR] [--batches 1,8] [--level 2]

FOLDER holds NETWORK.onnx and NETWORK.stats.safetensors, as `quantkit calibrate` or placement.py leave them, and for the
variants `table` and `modelopt` NETWORK.calib and NETWORK.modelopt.onnx. --dry writes the Q/DQ models alone, without a
GPU. Adds a line for each engine, and one for each network's times, to OUTPUT/variants.jsonl; what is there is not built
again. results/placement_variants.json was put together from such lines. Its `default` of yolov8n and pyramid is what
`unmoved` and `skip` are here, because the default has changed since; what is not here was edited by hand.

    default       today's placement for TensorRT 8         fp16, table    no pairs
    unmoved       Concat, MaxPool, Resize read floats      modelopt       as modelopt placed them
    skip          also the skip that a Resize makes        before         instead, the input of that Resize
    convside      instead, the convolution's side          add-one        one pair at Adds that have two
    mul, gated, gates   of squeeze-and-excite: a pair on what the gate multiplies, for the Mul; for the pool as well, so
                        that the convolution writes INT8; on the gate too
    readers-float       what reads depthwise convolutions reads floats, gates too; the base of all those around gates
    hardswish-float     of these, a HardSwish, and the convolution before it
    groups-float        grouped convolutions, but depthwise ones, in float
    dw-int8, dw-float   depthwise convolutions in INT8 everywhere, or nowhere
    expand-float, project-float, around-float, no-se   in float: the convolutions before depthwise ones; those behind
                        a gate; both; all three around a gate
    attn, fc, no-qkv    of vision transformers: INT8 around attention alone, in the MLP alone, and everywhere but in the
                        product that makes Q, K and V
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import quantkit  # noqa: E402
from quantkit.graph import load_model  # noqa: E402
from quantkit.graph.index import GraphIndex  # noqa: E402
from quantkit.graph.operators import ACTIVATIONS, SIGMOIDS, WEIGHTED, convolution_groups  # noqa: E402
from quantkit.qdq import insert, placement  # noqa: E402
from quantkit.qdq.patterns.gates import find_gates, gate_nodes, is_global_pool  # noqa: E402
from quantkit.qdq.patterns.int8_kernels import DEPTHWISE, narrow_kind  # noqa: E402
from quantkit.qdq.patterns.int8_readers import Int8Readers, find_int8_readers  # noqa: E402
from quantkit.qdq.placement import Choices, Placement, place_pairs  # noqa: E402
from quantkit.qdq.shared_scales import MOVING_READERS, AnyScales  # noqa: E402
from quantkit.values import QuantizedType  # noqa: E402

TENSORRT = "8.6.0"
Inputs = dict[int, tuple[int, ...]]
Rule = Callable[[GraphIndex, Inputs], None]
"""Changes which inputs of which nodes are read behind a pair."""


def keep(wires: GraphIndex, inputs: Inputs) -> None:
    """Change nothing."""


def unmove(wires: GraphIndex, inputs: Inputs) -> None:
    """Let operators that only move values read floats."""
    for number in [n for n in inputs if wires.nodes[n].op_type in MOVING_READERS]:
        del inputs[number]


def enlarged(wires: GraphIndex) -> Iterator[tuple[int, int]]:
    """Yield the Adds, and the place of their input, that a Resize makes."""
    for number, node in enumerate(wires.nodes):
        if node.op_type == "Add":
            for place, name in enumerate(node.input):
                maker = wires.maker(name)
                if maker is not None and maker.op_type == "Resize":
                    yield number, place


def pair_skip(wires: GraphIndex, inputs: Inputs) -> None:
    """Give the skip that a Resize makes a pair."""
    for number, place in enlarged(wires):
        inputs[number] = (place,)


def pair_convolution(wires: GraphIndex, inputs: Inputs) -> None:
    """Give the other input of such an Add a pair."""
    for number, place in enlarged(wires):
        inputs[number] = (1 - place,)


def pair_before(wires: GraphIndex, inputs: Inputs) -> None:
    """Give the input of such a Resize a pair."""
    for number, place in enlarged(wires):
        inputs[wires.makers[wires.nodes[number].input[place]]] = (0,)


def pair_once(wires: GraphIndex, inputs: Inputs) -> None:
    """Leave Adds that have pairs on both inputs the one that does not come from what only the Add reads."""
    for number in [n for n, places in inputs.items() if places == (0, 1) and wires.nodes[n].op_type == "Add"]:
        alone = [len(wires.readers[name]) == 1 for name in wires.nodes[number].input]
        inputs[number] = (1 if alone[0] else 0,)


def gated(wires: GraphIndex) -> Iterator[tuple[int, int, list[int]]]:
    """Yield the Muls of gates, the place of what they multiply, and the pools that read the same tensor."""
    weighted = gate_nodes(find_gates(wires))
    for number, node in enumerate(wires.nodes):
        if node.op_type != "Mul" or len(wires.activations(number)) != 2 or wires.is_silu(node):
            continue
        for place in (0, 1):
            maker = wires.maker(node.input[1 - place])
            if maker is not None and maker.op_type in SIGMOIDS and wires.makers.get(maker.input[0]) in weighted:
                uses = wires.uses(node.input[place])
                yield number, place, [reader.number for reader, user in uses if is_global_pool(wires, user)]


def weighted_before(wires: GraphIndex, tensor: str) -> int | None:
    """Return the operator with weights that makes a tensor, with an activation in between."""
    while (number := wires.makers.get(tensor)) is not None and wires.nodes[number].op_type not in WEIGHTED:
        node = wires.nodes[number]
        before = wires.silu_input(node) or (node.input[0] if node.op_type in ACTIVATIONS else None)
        if before is None:
            return None
        tensor = before
    return number


def pair_gated(wires: GraphIndex, inputs: Inputs, *, pool: bool = True, gate: bool = False) -> None:
    """Give what a gate multiplies a pair. pool: for the pool as well; gate: and the gate one."""
    for number, place, pools in gated(wires):
        inputs[number] = (0, 1) if gate else (place,)
        if pool:
            inputs.update(dict.fromkeys(pools, (0,)))
            if (maker := weighted_before(wires, wires.nodes[number].input[place])) is not None:
                inputs[maker] = (0, 1)


def float_hardswish(wires: GraphIndex, inputs: Inputs) -> None:
    """Let each HardSwish behind a depthwise convolution read floats, so that the convolution is float."""
    for number in depthwise(wires):
        for reader, node in wires.uses(wires.nodes[number].output[0]):
            if node.op_type == "HardSwish":
                inputs.pop(reader.number, None)
                inputs.pop(number, None)


def depthwise(wires: GraphIndex) -> list[int]:
    """Return the depthwise convolutions."""
    return [number for number in range(len(wires.nodes)) if narrow_kind(wires, number) == DEPTHWISE]


def pair_depthwise(wires: GraphIndex, inputs: Inputs) -> None:
    """Give all depthwise convolutions pairs."""
    inputs.update(dict.fromkeys(depthwise(wires), (0, 1)))


def float_groups(wires: GraphIndex, inputs: Inputs) -> None:
    """Leave grouped convolutions that are not depthwise in float."""
    for number, node in enumerate(wires.nodes):
        groups = convolution_groups(node)
        if node.op_type == "Conv" and groups > 1 and narrow_kind(wires, number) != DEPTHWISE:
            inputs.pop(number, None)


def drop(*kinds: str) -> Rule:
    """Return a rule that leaves operators around depthwise convolutions and gates in float."""

    def rule(wires: GraphIndex, inputs: Inputs) -> None:
        found = set[int]()
        if "depthwise" in kinds:
            found |= set(depthwise(wires))
        if "expand" in kinds:
            made = (weighted_before(wires, wires.nodes[number].input[0]) for number in depthwise(wires))
            found |= {number for number in made if number is not None}
        if "project" in kinds:
            muls = [wires.nodes[number].output[0] for number, _, _ in gated(wires)]
            found |= {reader.number for name in muls for reader, _ in wires.uses(name)}
        for number in found & inputs.keys():
            del inputs[number]

    return rule


def drop_gated_blocks(wires: GraphIndex, inputs: Inputs) -> None:
    """Leave the convolutions in front of a gate, the one before them, and that behind it in float."""
    for number, place, _ in gated(wires):
        middle = weighted_before(wires, wires.nodes[number].input[place])
        first = None if middle is None else weighted_before(wires, wires.nodes[middle].input[0])
        behind = [reader.number for reader, _ in wires.uses(wires.nodes[number].output[0])]
        for each in (middle, first, *behind):
            if each is not None:
                inputs.pop(each, None)
    for number in [n for n in inputs if wires.nodes[n].op_type == "Add"]:
        if not any(reader.number in inputs for reader, _ in wires.uses(wires.nodes[number].output[0])):
            del inputs[number]


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant: a rule on top of the default placement, and nodes that stay float.

    readers: whether what reads depthwise convolutions may read them behind pairs, as in the default for TensorRT 8.
    """

    rule: Rule = keep
    exclude: tuple[str, ...] = ()
    readers: bool = True


VARIANTS = {
    "default": Variant(),
    "unmoved": Variant(unmove),
    "skip": Variant(pair_skip),
    "convside": Variant(pair_convolution),
    "before": Variant(pair_before),
    "add-one": Variant(pair_once),
    "readers-float": Variant(readers=False),
    "groups-float": Variant(float_groups),
    "mul": Variant(partial(pair_gated, pool=False), readers=False),
    "gated": Variant(pair_gated, readers=False),
    "gates": Variant(partial(pair_gated, gate=True), readers=False),
    "hardswish-float": Variant(float_hardswish),
    "dw-int8": Variant(pair_depthwise, readers=False),
    "dw-float": Variant(drop("depthwise"), readers=False),
    "expand-float": Variant(drop("expand"), readers=False),
    "project-float": Variant(drop("project"), readers=False),
    "around-float": Variant(drop("expand", "project"), readers=False),
    "no-se": Variant(drop_gated_blocks, readers=False),
    "attn": Variant(exclude=("/blocks/*/mlp/*", "/head/*")),
    "fc": Variant(exclude=("/blocks/*/attn/*", "/head/*")),
    "no-qkv": Variant(exclude=("/blocks/*/attn/qkv/*",)),
}
GIVEN = {"fp16": ("{}.onnx", "fp16"), "table": ("{}.onnx", "int8"), "modelopt": ("{}.modelopt.onnx", "int8")}
"""Variants that are not made here → file and precision."""


def write_variant(folder: Path, network: str, name: str) -> Path:
    """Write the Q/DQ model of a variant, and return its path."""
    variant, model = VARIANTS[name], folder / f"{network}.onnx"

    def place(wires: GraphIndex, scales: AnyScales, choices: Choices | None = None) -> Placement:
        found = place_pairs(wires, scales, choices)
        inputs = dict(found.inputs)
        variant.rule(wires, inputs)
        types = dict.fromkeys(sorted(inputs), QuantizedType.INT8)
        return replace(found, inputs={number: inputs[number] for number in types}, types=types)

    target = folder / f"{network}.{name}.onnx"
    insert.place_pairs = place
    if not variant.readers:
        placement.find_int8_readers = lambda *_: Int8Readers()
    try:
        quantkit.quantize(
            model, target, statistics=model.with_suffix(".stats.safetensors"), tensorrt_version=TENSORRT, force=True,
            exclude=variant.exclude,
        )  # fmt: skip
    finally:
        insert.place_pairs = place_pairs
        placement.find_int8_readers = find_int8_readers
    return target


@dataclass(frozen=True, slots=True)
class Session:
    """One run: where files lie, and how engines are built and timed."""

    folder: Path
    output: Path
    batches: tuple[int, ...]
    level: int

    @property
    def lines(self) -> Path:
        """The file of results."""
        return self.output / "variants.jsonl"

    def add(self, **line: Any) -> None:
        """Keep one result at once: TensorRT may crash at the next."""
        print(json.dumps(line), flush=True)
        with self.lines.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def built(self) -> set[tuple[str, str]]:
        """Return network and variant of the builds that ended."""
        text = self.lines.read_text() if self.lines.exists() else ""
        known = [json.loads(line) for line in text.splitlines()]
        return {(line["network"], line["variant"]) for line in known if line["what"] in ("built", "failed")}

    def engine(self, network: str, name: str) -> Path:
        """Return the path of an engine."""
        return self.output / f"{network}.{name}.engine"

    def build(self, network: str, name: str) -> None:
        """Build the engine of a variant, or note why there is none."""
        file, precision = GIVEN.get(name, (f"{{}}.{name}.onnx", "int8"))
        path = self.folder / file.format(network)
        least, most = min(self.batches), max(self.batches)
        try:
            made = quantkit.build(
                path, precision=precision, table=self.folder / f"{network}.calib" if name == "table" else None,
                output=self.engine(network, name), level=self.level, force=True, retarget=True,
                shapes=f"{load_model(path).inputs[0].name}={least}:{most}:{most}",
            )  # fmt: skip
        except quantkit.QuantkitError as error:
            self.add(what="failed", network=network, variant=name, error=str(error)[:1000])
            return
        layers = made.record.layers
        self.add(
            what="built", network=network, variant=name, build_seconds=made.record.seconds, kernels=len(layers),
            reformats=sum("eformat" in layer.name for layer in layers), precisions=dict(made.counts),
        )  # fmt: skip

    def time(self, network: str, names: list[str]) -> None:
        """Time the engines of a network side by side."""
        from quantkit.engines.round_times import measure_rounds

        paths = {name: path for name in names if (path := self.engine(network, name)).exists()}
        found = measure_rounds(paths, self.batches, seconds=0.05)
        times = {
            name: {str(b): {"median": t.median, "spread": t.spread} for b, t in by_batch.items()}
            for name, by_batch in found.items()
        }
        self.add(what="timed", network=network, ms=times)


def main() -> None:
    """Make, build and time the variants of all networks that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NETWORK:VARIANT,VARIANT…")
    parser.add_argument("--output", type=Path, help="default: FOLDER")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--level", type=int, default=2, help="of TensorRT's builder optimization")
    parser.add_argument("--dry", action="store_true", help="write the models alone")
    arguments = parser.parse_args()
    batches = tuple(int(size) for size in arguments.batches.split(","))
    session = Session(arguments.folder, arguments.output or arguments.folder, batches, arguments.level)
    session.output.mkdir(parents=True, exist_ok=True)
    plan = [(network, names.split(",")) for network, _, names in (word.partition(":") for word in arguments.networks)]
    if unknown := {name for _, names in plan for name in names} - VARIANTS.keys() - GIVEN.keys():
        parser.error(f"unknown variants: {', '.join(sorted(unknown))}; known: {', '.join((*VARIANTS, *GIVEN))}")
    for network, names in plan:
        for name in names:
            if name in VARIANTS:
                write_variant(session.folder, network, name)
    if not arguments.dry:
        build_and_time(session, plan)


def build_and_time(session: Session, plan: list[tuple[str, list[str]]]) -> None:
    """Build all engines in one process, as builds then share kernel times."""
    from quantkit.backends.tensorrt.build import kernels_loaded

    with kernels_loaded():
        for network, names in plan:
            for name in names:
                if (network, name) not in session.built():
                    session.build(network, name)
            session.time(network, names)


if __name__ == "__main__":
    main()
