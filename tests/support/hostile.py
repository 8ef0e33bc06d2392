"""Readers of quantkit under changed documents. The law: a value, or a QuantkitError with a remedy; nothing else.

`KINDS` names each kind of document with samples, mutators and its reader. What a reader accepts is written and read
back where quantkit writes such documents itself.
"""

from __future__ import annotations

import json
import random
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantkit.backends.engine_record import EngineRecord, engine_record_bytes, engine_record_path, read_engine_record
from quantkit.backends.session import open_session
from quantkit.calibration.checkpoint import KEY as CHECKPOINT
from quantkit.calibration.checkpoint import Position, read_checkpoint, write_checkpoint
from quantkit.data.classes import read_classes
from quantkit.data.data_yaml import DATA_YAML, declared_keypoints, declared_names
from quantkit.data.labels.label_table import read_label_table
from quantkit.data.opening import DataOptions, open_data
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency, Throughput
from quantkit.errors import QuantkitError
from quantkit.evaluation.compare import read_evaluation
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.export.batching import read_bench
from quantkit.graph import load_model
from quantkit.histogram import BINS, Histogram, HistogramMode
from quantkit.inspection.model import inspect
from quantkit.linting.lint import lint
from quantkit.metrics.labels.coco_json import read_coco
from quantkit.metrics.labels.voc_xml import read_voc
from quantkit.metrics.labels.yolo_text import read_yolo
from quantkit.metrics.objects.found import FoundObjects
from quantkit.metrics.task import network_facts
from quantkit.plugin import load_plugin
from quantkit.preprocess import METADATA_KEY, PRESETS, Preprocess, load_preprocess, metadata_preprocess
from quantkit.project.settings import read_settings, settings_template
from quantkit.project.store import stored_digest
from quantkit.provenance import read_provenance
from quantkit.quantization.from_qdq import kept_changes_text
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.quantize import quantize
from quantkit.quantization.record import METADATA_KEY as QUANTIZED
from quantkit.sensitivity.exclusion_file import expand_name_files
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.statistics import read_statistics
from quantkit.statistics.file import KEY as STATISTICS
from quantkit.statistics.file import statistics_bytes
from quantkit.statistics.sealed import read_sealed, sealed_bytes
from quantkit.statistics.statistics import Channels, Origin, Statistics
from quantkit.table import read_table, table_bytes
from quantkit.table.codec import parse_table
from quantkit.values import ModelInput
from tests.support.mutation import mutate_bytes, mutate_json, mutate_model, mutate_text

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
IDENTITY = {"model": "m", "rules": ["entropy"]}
FEED = SimpleNamespace(positions=64, samples=64, batch_size=8)
INPUT = ModelInput("x", "float32", ("N", 3))
Mutator = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of document. name: of the file. samples: documents that are read. read: the reader, on a path."""

    name: str
    samples: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    mutators: tuple[Mutator, ...] = (mutate_bytes,)
    cost: int = 1
    """How many documents of other kinds take as long as one of this."""


@dataclass(frozen=True)
class Outcome:
    """What a reader did with a document: it was accepted, refused, or shows a fault, whose place is in `text`."""

    accepted: bool = False
    refused: bool = False
    text: str = ""


def outcome_of(kind: Kind, path: Path) -> Outcome:
    """Read a document; everything but a value and a QuantkitError with a remedy is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            kind.read(path)
        except QuantkitError as error:
            return Outcome(refused=True) if error.remedy and error.problem else Outcome(text="no remedy")
        except Exception as error:
            own = [f for f in traceback.extract_tb(error.__traceback__) if "/quantkit/" in f.filename]
            at = own[-1] if own else traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(text=f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {str(error)[:200]!r}")
    return Outcome(accepted=True)


def document_of(kind: Kind, seed: int) -> bytes:
    """Return the document of a seed: one of the samples, changed."""
    draw = random.Random(seed)
    return draw.choice(kind.mutators)(draw, draw.choice(kept_samples(kind)))


@cache
def kept_samples(kind: Kind) -> list[bytes]:
    """Return the samples of a kind, which are made once."""
    return kind.samples()


def text_samples(*texts: str) -> Callable[[], list[bytes]]:
    """Return samples that are texts."""
    return lambda: [text.encode() for text in texts]


def read_data_yaml(path: Path) -> object:
    """Read a data.yaml without looking for its images."""
    found = DATA_YAML.read(path)
    return declared_names(path, found), declared_keypoints(path, found.kpt_shape)


def read_metadata(path: Path) -> object:
    """Read a text as entries of a network's metadata."""
    text = path.read_bytes().decode("utf-8", "replace")
    return network_facts({**EXPORT, "names": text, "kpt_shape": text})


# ── models ──


def small_models() -> list[bytes]:
    """A classifier, a network with a loop and a branch, and one with Q/DQ."""
    draw = np.random.default_rng(0)
    w = numpy_helper.from_array(draw.standard_normal((2, 3, 1, 1)).astype("f4"), "w")
    v = numpy_helper.from_array(draw.standard_normal((2, 4)).astype("f4"), "v")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[0, 0, 0, 0]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="dense"),
    ]
    plain = onnx_model(nodes, [w, v])
    plain.metadata_props.add(key=METADATA_KEY, value='{"preset": "unit"}')
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    pairs = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="d"),
        helper.make_node("Conv", ["xd", "w"], ["c"], name="conv"),
        *nodes[1:],
    ]
    branch = helper.make_graph(
        [helper.make_node("Identity", ["f"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    choice = [
        *nodes[:4],
        helper.make_node("If", ["k"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["i", "v"], ["y"]),
    ]
    branching = onnx_model(choice, [w, v, numpy_helper.from_array(np.array(True), "k")])
    return [bytes(m.SerializeToString()) for m in (plain, onnx_model(pairs, [w, v, scale, zero]), branching)]


def onnx_model(nodes: list[Any], weights: list[Any]) -> onnx.ModelProto:
    """Return a network of images [N,3,4,4] with four outputs."""
    x = helper.make_tensor_value_info("x", 1, ["N", 3, 4, 4])
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", 1, ["N", 4])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantize_model(path: Path) -> object:
    """Quantize a network by a table that has its tensors, as far as they keep their names."""
    table = path.with_name("q.calib")
    table.write_text("TRT-8601-EntropyCalibration2\n" + "".join(f"{name}: 3c010a14\n" for name in "xcrpfiy"))
    return quantize(path, table=table, options=QuantizeOptions(min_coverage=0.0))


def run_model(path: Path) -> object:
    """Run a network on onnxruntime."""
    model = load_model(path)
    return open_session(model, model.outputs).runner()({"x": np.ones((1, 3, 4, 4), "f4")})


def read_spec_metadata(path: Path) -> object:
    """Read a preprocessing spec in a model's metadata."""
    return metadata_preprocess({METADATA_KEY: path.read_bytes().decode("utf-8", "replace")})


def read_foreign_metadata(path: Path) -> object:
    """Read the image size in Ultralytics' metadata."""
    text = path.read_bytes().decode("utf-8", "replace")
    return metadata_preprocess({"author": "Ultralytics", "task": "detect", "imgsz": text})


def read_kept_changes(path: Path) -> object:
    """Read what quantize records in a model's metadata."""
    return kept_changes_text({QUANTIZED: path.read_bytes().decode("utf-8", "replace")}, "m.onnx")


# ── files that quantkit writes ──


def small_statistics() -> Statistics:
    """Statistics of two tensors, one with channels."""
    counts = np.zeros(BINS, np.int64)
    counts[[0, 5, BINS - 1]] = 10, 5, 1
    one = Histogram(counts, 2.0, -2.0, 1.5)
    views = Channels("a", 1, np.full(2, -2, "f4"), np.full(2, 1.5, "f4"), np.zeros((2, 2, 4), np.int64), 8)
    origin = Origin(
        model="0" * 64, data="1" * 64, samples=2, histogram=HistogramMode.TENSORRT, backend="onnxruntime 1 cpu", slice=1
    )
    return Statistics({"a": one, "b": one}, (views,), {"b": "a"}, origin)


def checkpoint_samples() -> list[bytes]:
    """A checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c"
        write_checkpoint(path, IDENTITY, Position(stop=16, batches=2, samples=16), {"a": np.arange(4.0)})
        return [path.read_bytes()]


def resealed(draw: random.Random, content: bytes, key: str) -> bytes:
    """Change metadata or arrays of a file with a digest, and give it the digest that fits."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        found = read_sealed(Path(file.name), key)
    arrays = dict(found.arrays)
    text = found.text
    for _ in range(draw.randint(1, 2)):
        if draw.random() < 0.5:
            text = draw.choice((mutate_json, mutate_text))(draw, found.text.encode()).decode("utf-8", "replace")
            continue
        if not arrays:
            break
        name = draw.choice(list(arrays))
        changed = mutate_bytes(draw, arrays[name].tobytes())
        kind = draw.choice([arrays[name].dtype, *(np.dtype(t) for t in ("f4", "f8", "i8", "i4", "u1"))])
        flat = np.frombuffer(changed[: len(changed) // kind.itemsize * kind.itemsize], kind)
        fits = flat.size == arrays[name].size and draw.random() < 0.9
        arrays[name] = flat.reshape(arrays[name].shape) if fits else flat
        if draw.random() < 0.1:
            del arrays[name]
    return sealed_bytes(arrays, key, text)


def round_trip_table(path: Path) -> object:
    """Read a table, write it, and read that."""
    table = read_table(path)
    content = table_bytes(table)
    assert content == path.read_bytes(), "written otherwise than read"
    return parse_table(content)


def small_totals() -> bytes:
    """A shard of an evaluation with a value of every kind."""
    found = FoundObjects(np.ones((1, 4)), np.ones(1), np.zeros(1, np.intp), ({"size": [2, 3], "counts": b"01"},))
    tree = {"found": [found], "sum": 1.5, "names": ["a"], "truth": (np.arange(3),), "none": None}
    record = record_shard(Shard(1, 4), range(3, 5), RunIdentity({"batch size": 4}), files="")
    return EVALUATION.content_of(record, tree)


def round_trip_totals(path: Path) -> object:
    """Read a shard of an evaluation, write it, and read that."""
    found = EVALUATION.parse(path.read_bytes(), path.name)
    return EVALUATION.parse(EVALUATION.content_of(found.shard, found.tree), path.name)


def round_trip_statistics(path: Path) -> object:
    """Read statistics, write them, and read that."""
    found = read_statistics(path)
    content = statistics_bytes(found)
    path.write_bytes(content)
    assert statistics_bytes(read_statistics(path)) == content, "written otherwise than read"
    return found


def round_trip_evaluation(path: Path) -> object:
    """Read an evaluation, write it, and read that."""
    found = read_evaluation(path)
    document = json.loads(json.dumps(evaluation_json(found)))
    again = evaluation_json(parse_evaluation(document, "again"))
    assert json.dumps(again) == json.dumps(document), "written otherwise than read"
    return found


def engine_samples() -> list[bytes]:
    """A record of an engine."""
    model = {"file": "m.onnx", "sha256": "0" * 64}
    record = EngineRecord.model_validate_json(
        json.dumps(
            {
                "quantkit": "0.2.0", "file": "m.engine", "sha256": "1" * 64, "bytes": 9, "tensorrt": "8.6.1",
                "gpu": "H",
                "model": model, "precision": "int8", "shapes": {"x": "1x3:8x3:8x3"}, "options": {"level": 3},
                "seconds": 1.5, "device_memory": 7, "layers": [
                    {"name": "l", "nodes": ["n"], "kind": "Conv", "precision": "INT8"}
                ], "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3]}],
            }
        )
    )  # fmt: skip
    return [engine_record_bytes(record)]


def bench_samples() -> list[bytes]:
    """The result of a benchmark."""
    subject = BenchSubject("m.onnx", "fp32", 100, "0" * 64, counts={"FP32": 3})
    latency = Latency("m.onnx", 1, False, 0.1, 0.2, 0.3, 10)
    found = BenchResult("CPU", False, (subject,), (latency,), (Throughput("m.onnx", 1, 1, False, 100.0),), ("note",))
    return [json.dumps(asdict(found)).encode()]


def provenance_samples() -> list[bytes]:
    """A record of provenance."""
    document = {
        "format": 1, "quantkit": "0.2.0", "origin": "calibrated", "rule": "entropy",
        "table": {"file": "m.calib", "sha256": "0" * 64, "header": "TRT-8601-EntropyCalibration2", "tensors": 3},
        "model": {"file": "m.onnx", "sha256": "1" * 64},
        "data": {"source": "x", "kind": "images", "samples": 2, "chosen": 2, "content": "0" * 64, "shuffle": False,
                 "seed": 0, "files": [["a.png", 5, 6]]},
        "run": {"histogram": "tensorrt", "backend": "onnxruntime 1 cpu", "batches": 1, "slice": 1},
    }  # fmt: skip
    return [json.dumps(document).encode()]


def evaluation_samples() -> list[bytes]:
    """An evaluation that an older version wrote."""
    document = json.loads((RESULTS / "deployment" / "resnet20.json").read_text())["evaluation"]
    for model in document["models"]:
        model["changed"], model["classes"] = model["changed"][:1], model["classes"][:1]
    return [json.dumps(document).encode()]


# ── data ──


def array_samples() -> list[bytes]:
    """Arrays in a .npy file."""
    made = []
    for array in (np.arange(12, dtype="f4").reshape(4, 3), np.asfortranarray(np.ones((4, 3), "f4"))):
        buffer = BytesIO()
        np.save(buffer, array)
        made.append(buffer.getvalue())
    return made


def archive_samples() -> list[bytes]:
    """Arrays in .npz files."""
    made = []
    for save in (np.savez, np.savez_compressed):
        buffer = BytesIO()
        save(buffer, x=np.arange(12, dtype="f4").reshape(4, 3), y=np.arange(4))
        made.append(buffer.getvalue())
    return made


def read_arrays(path: Path) -> object:
    """Read every batch of a file of arrays."""
    feed, _ = open_data(str(path), [INPUT], PRESETS["raw"], DataOptions(threads=1))
    batches: Iterator[Any] = iter(feed.portions())
    return sum(1 for _ in batches)


def read_step(path: Path) -> object:
    """Look at the record of a step, which is either whole or nothing."""
    return stored_digest(path.parent)


def step_samples() -> list[bytes]:
    """A record of a step."""
    return [json.dumps({"step": "table", "quantkit": "0.2.0", "inputs": {"a": 1}, "files": {}}).encode()]


JSON = (mutate_json, mutate_text, mutate_bytes)
TEXT = (mutate_text, mutate_bytes)
COCO = (
    '{"images": [{"id": 1, "file_name": "a.png", "width": 5, "height": 5}], "categories": [{"id": 1, "name": "cat"}],'
    ' "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0}]}'
)
OUTLINES = COCO.replace(
    '"iscrowd": 0',
    '"segmentation": [[1, 1, 4, 1, 4, 4]], "keypoints": [1, 1, 2]}, {"image_id": 1, "category_id": 1, '
    '"bbox": [0, 0, 1, 1], "area": 1.5, "segmentation": {"size": [5, 5], "counts": [3, 2, 20]}',
)
VOC = (
    "<annotation><object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax>"
    "<ymax>4</ymax></bndbox></object></annotation>"
)
DATA_SET = (
    "path: .\ntrain: data.yaml\nval: [images/val, list.txt]\nnames: {0: cat, 1: 'no'}\nnc: 2\nkpt_shape: [4, 2]\n"
)
EXPORT = {"author": "Ultralytics", "task": "pose", "stride": "32"}
SPEC = Preprocess(resize="shortest", size=(224, 224), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)).model_dump_json()
KINDS = {
    "model": Kind("m.onnx", small_models, inspect, (mutate_model,), cost=4),
    "lint": Kind("l.onnx", lambda: small_models()[1:2], lint, (mutate_model,), cost=4),
    "load": Kind("o.onnx", small_models, load_model, (mutate_model, mutate_bytes)),
    "quantize": Kind("q.onnx", small_models, quantize_model, (mutate_model,), cost=8),
    "run": Kind("r.onnx", small_models, run_model, (mutate_model,), cost=8),
    "metadata, ours": Kind("spec", text_samples(SPEC, '{"preset": "unit"}'), read_spec_metadata, JSON),
    "metadata, Ultralytics": Kind("size", text_samples("[640, 640]", "[384]"), read_foreign_metadata, TEXT),
    "metadata, quantize": Kind("kept", text_samples('{"repairs": ["bias"], "fp16": true}'), read_kept_changes, JSON),
    "table": Kind(
        "t.calib",
        text_samples(
            "TRT-8601-EntropyCalibration2\nimages: 3c008912\n(Unnamed Layer* 12) [Constant]_output: 3a4fb8dc\n",
            "0 3fefffffff000000 3feffffff0000000\na: 3c010a14\n",
        ),
        round_trip_table,
        TEXT,
    ),
    "statistics": Kind("s.stats", lambda: [statistics_bytes(small_statistics())], round_trip_statistics, TEXT),
    "statistics, sealed": Kind(
        "s.stats",
        lambda: [statistics_bytes(small_statistics())],
        round_trip_statistics,
        (lambda draw, content: resealed(draw, content, STATISTICS),),
    ),
    "shard of an evaluation": Kind("e.safetensors", lambda: [small_totals()], round_trip_totals, TEXT),
    "shard of an evaluation, sealed": Kind(
        "e.safetensors",
        lambda: [small_totals()],
        round_trip_totals,
        (lambda draw, content: resealed(draw, content, EVALUATION.key),),
    ),
    "checkpoint, sealed": Kind(
        "c.partial",
        checkpoint_samples,
        lambda path: read_checkpoint(path, IDENTITY, FEED, 1),  # type: ignore[arg-type]
        (lambda draw, content: resealed(draw, content, CHECKPOINT),),
    ),
    "checkpoint": Kind(
        "c.partial",
        checkpoint_samples,
        lambda path: read_checkpoint(path, IDENTITY, FEED, 1),  # type: ignore[arg-type]
        TEXT,
    ),
    "provenance": Kind("p.json", provenance_samples, read_provenance, JSON),
    "engine record": Kind("e.engine.json", engine_samples, lambda path: read_engine_record(path.with_suffix("")), JSON),
    "step record": Kind("step.json", step_samples, read_step, JSON),
    "evaluation": Kind("v.json", evaluation_samples, round_trip_evaluation, JSON),
    "benchmark": Kind("b.json", bench_samples, read_bench, JSON),
    "settings": Kind("quantkit.toml", lambda: [settings_template("m.onnx", "imgs").encode()], read_settings, TEXT),
    "preprocessing": Kind(
        "p.toml",
        text_samples('preset = "imagenet"\nsize = [224, 224]\nmean = [0.5, 0.4, 0.3]\ncrop_fraction = 0.875\n'),
        load_preprocess,
        TEXT,
    ),
    "class names, JSON": Kind(
        "n.json", text_samples('["a", "b"]', '{"a": 0}', '{"0": ["n01", "b"]}'), read_classes, JSON
    ),
    "class names, CSV": Kind("n.csv", text_samples("name,index\ncat,0\ndog,1\n", '0,"a, b"\n'), read_classes, TEXT),
    "class names, text": Kind("n.txt", text_samples("cat\ndog\nn01440764 tench, Tinca\n"), read_classes, TEXT),
    "labels, CSV": Kind("l.csv", text_samples("file,label\na.png,0\nb.png,1\n"), read_label_table, TEXT),
    "labels, COCO": Kind("coco.json", text_samples(COCO), read_coco, JSON),
    "labels, COCO's outlines": Kind(
        "coco.json", text_samples(OUTLINES), lambda path: read_coco(path, outlines=True, keypoints=True), JSON
    ),
    "labels, YOLO": Kind(
        "l.txt", text_samples("0 .5 .5 .2 .2\n1 .1 .1 .2 .1 .2 .3\n"), lambda path: read_yolo(path, (9, 9)), TEXT
    ),
    "labels, YOLO's keypoints": Kind(
        "l.txt", text_samples("0 .5 .5 .2 .2 .1 .1 2 0 0 0\n"), lambda path: read_yolo(path, (9, 9), (2, 3)), TEXT
    ),
    "labels, VOC": Kind("v.xml", text_samples(VOC), read_voc, TEXT),
    "data set": Kind("data.yaml", text_samples(DATA_SET), read_data_yaml, TEXT),
    "metadata": Kind("m.txt", text_samples("{0: 'cat', 1: \"driver's\"}", "[17, 3]"), read_metadata, TEXT),
    "array": Kind("a.npy", array_samples, read_arrays),
    "archive": Kind("a.npz", archive_samples, read_arrays),
    "exclusions": Kind(
        "x.exclude",
        text_samples("# remark\nconv1  # Conv, 20 dB\n/head/*\n"),
        lambda p: expand_name_files([f"@{p}"]),
        TEXT,
    ),
    "plugin": Kind(
        "plugin",
        text_samples("json:dumps", "os.path:join"),
        lambda p: load_plugin(p.read_bytes().decode("utf-8", "replace"), option="--data", remedies=("a", "b")),
        (mutate_text,),
    ),
}
assert engine_record_path(Path("e.engine")).name == KINDS["engine record"].name
