"""Decisions of a build that need no TensorRT: output path, table, reuse, and warnings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import quantkit
from quantkit._version import __version__
from quantkit.artifact import sha256_of
from quantkit.backends.engine_record import EngineLayer, EngineRecord, TableUse, engine_record_bytes, engine_record_path
from quantkit.backends.tensorrt.build import EngineBuild
from quantkit.backends.tensorrt.options import BuildOptions, Precision, TrtexecCommand
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.engines.build import build, engine_output_path, read_timing_cache, trtexec_command
from quantkit.engines.built_engine import BuiltEngine, engine_identity, reuse_engine
from quantkit.engines.table_scales import find_table_scales
from quantkit.errors import OutputError, StaleError, TableError, UsageError
from quantkit.graph import Model, load_model
from quantkit.provenance import ModelRecord, Provenance, TableRecord, provenance_bytes, provenance_path
from quantkit.table import Algorithm, CalibrationTable, Header, table_bytes

TEXT = '<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {{ {body} }}'
PLAIN = "y = Conv(x, w)"
QDQ = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w)"
TABLE = CalibrationTable(Header(Algorithm.ENTROPY_2, 8600), {"x": 0.5, "y": 0.25})
PLAN = b"an engine"
RANGES = {"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}
SCALES = TableUse(file="t", sha256="t", header="h", rule="entropy", share=1.0)


def network(folder: Path, body: str = PLAIN) -> Model:
    proto = parser.parse_model(TEXT.format(body=body))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "s"))
    proto.graph.initializer.append(numpy_helper.from_array(np.int8(0), "z"))
    onnx.save(proto, folder / "net.onnx")
    return load_model(folder / "net.onnx")


def write_table(path: Path, *, model: str | None = None, changed: bool = False) -> Path:
    """A table, with a provenance record if `model` is the sha256 of a network."""
    path.write_bytes(table_bytes(TABLE))
    if model is not None:
        digest = "other" if changed else sha256_of(path.read_bytes())
        record = TableRecord(file=path.name, sha256=digest, header=TABLE.header.text, tensors=2)
        known = Provenance(quantkit="1", table=record, model=ModelRecord(file="net.onnx", sha256=model), rule="entropy")
        provenance_path(path).write_bytes(provenance_bytes(known))
    return path


def record(**changed: Any) -> EngineRecord:
    settings: dict[str, Any] = {
        "quantkit": "1",
        "file": "net.engine",
        "sha256": sha256_of(PLAN),
        "bytes": len(PLAN),
        "tensorrt": "8.6.1",
        "gpu": "NVIDIA H200",
        "model": ModelRecord(file="net.onnx", sha256="m"),
        "precision": "int8",
        "shapes": {name: r.text for name, r in RANGES.items()},
        "options": BuildOptions().document(),
        "seconds": 1.0,
        "device_memory": 1,
        "layers": (),
    }
    return EngineRecord(**{**settings, **changed})


# ── output path ──


def test_the_engine_goes_beside_the_model_or_to_the_given_path(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    assert engine_output_path(None, model, "a.engine") == tmp_path / "a.engine"
    assert engine_output_path(str(tmp_path), model, "a.engine") == tmp_path / "a.engine"
    assert engine_output_path(tmp_path / "b.plan", model, "a.engine") == tmp_path / "b.plan"
    with pytest.raises(OutputError, match="there is no folder"):
        engine_output_path(tmp_path / "none" / "b.plan", model, "a.engine")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("onto", ["net.onnx", "net.calib", "link.onnx"])
@pytest.mark.parametrize("force", [False, True])
def test_the_engine_does_not_replace_model_or_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onto: str, force: bool
) -> None:
    monkeypatch.setattr("quantkit.engines.build.tensorrt", lambda: None)
    monkeypatch.setattr("quantkit.engines.build.detect_features", lambda _: SimpleNamespace(version="8.6.1"))
    monkeypatch.setattr("quantkit.engines.build.open_device", lambda _: SimpleNamespace(slug="h200", name="H200"))
    monkeypatch.setattr("quantkit.engines.build.build_engine", lambda *_, **__: pytest.fail("nothing is built"))
    model = network(tmp_path)
    write_table(tmp_path / "net.calib", model=model.sha256)
    (tmp_path / "link.onnx").symlink_to(model.path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="would replace its own source") as caught:
        build(model.path, output=tmp_path / onto, options=BuildOptions(force=force, shapes=("x=1:2:4",)))
    assert str(tmp_path / onto) in caught.value.problem
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("beside", "kept"), [("net.engine.json", True), ("net.engine.calib", True), (None, False)])
def test_files_of_others_beside_the_engine_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beside: str | None, kept: bool
) -> None:
    """Without a file of the user's the build begins; the timing cache is TensorRT's to judge."""
    monkeypatch.setattr("quantkit.engines.build.tensorrt", lambda: None)
    monkeypatch.setattr("quantkit.engines.build.detect_features", lambda _: SimpleNamespace(version="8.6.1"))
    monkeypatch.setattr("quantkit.engines.build.open_device", lambda _: SimpleNamespace(slug="h200", name="H200"))

    def begin(*_: Any, **__: Any) -> None:
        raise UsageError("it begins", remedy="")

    monkeypatch.setattr("quantkit.engines.build.build_engine", begin)
    model = network(tmp_path)
    write_table(tmp_path / "net.calib", model=model.sha256)
    (tmp_path / "timing.h200.8.6.1.cache").write_text("mine")
    if beside is not None:
        (tmp_path / beside).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StaleError if kept else UsageError, match=f"{beside} already exists" if kept else "it begins"):
        build(model.path, output=tmp_path / "net.engine", options=BuildOptions(shapes=("x=1:2:4",)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UsageError, match="it begins"):
        build(model.path, output=tmp_path / "net.engine", options=BuildOptions(force=True, shapes=("x=1:2:4",)))


def test_tensorrt_gets_a_float_network_without_nodes_that_pass_a_weight_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Q/DQ network stays as its author wrote it: `lint --fix` folds there."""
    given: list[Model] = []

    def stop(model: Model, *_: Any, **__: Any) -> None:
        given.append(model)
        raise UsageError("stop", remedy="")

    monkeypatch.setattr("quantkit.engines.build.tensorrt", lambda: None)
    monkeypatch.setattr("quantkit.engines.build.detect_features", lambda _: SimpleNamespace(version="8.6.1"))
    monkeypatch.setattr("quantkit.engines.build.open_device", lambda _: SimpleNamespace(slug="h200", name="H200"))
    monkeypatch.setattr("quantkit.engines.build.build_engine", stop)
    for body in ("v = Identity(w) y = Conv(x, v)", QDQ.replace("y =", "v = Identity(w) y =").replace("d, w", "d, v")):
        model = network(tmp_path, body)
        with pytest.raises(UsageError, match="stop"):
            build(model.path, options=BuildOptions(shapes=("x=1:2:4",)))
    assert [[node.op_type for node in model.proto.graph.node] for model in given] == [
        ["Conv"],
        ["QuantizeLinear", "DequantizeLinear", "Identity", "Conv"],
    ]


def test_every_engine_of_a_float_network_comes_from_build() -> None:
    """`bench`, `tune` and `run` time what `build` makes, so that FP16 is cleaned wherever it is timed."""
    package = Path(quantkit.__file__).parent
    callers = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if "build_engine(" in path.read_text()
    }
    assert callers == {"backends/tensorrt/build.py", "engines/build.py"}


def test_a_network_that_was_cleaned_has_no_trtexec_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file that `trtexec` would read still holds the nodes that slow it down."""
    made = EngineBuild(PLAN, 1.0, "8.6.1", "H200", (), 1, None, None, ())
    features = SimpleNamespace(version="8.6.1", progress=False, always_strong=False)
    monkeypatch.setattr("quantkit.engines.build.tensorrt", lambda: None)
    monkeypatch.setattr("quantkit.engines.build.detect_features", lambda _: features)
    monkeypatch.setattr("quantkit.engines.build.open_device", lambda _: SimpleNamespace(slug="h200", name="H200"))
    monkeypatch.setattr("quantkit.engines.build.build_engine", lambda *_, **__: made)
    for name, body in (("plain", PLAIN), ("shared", "v = Identity(w) y = Conv(x, v)")):
        (tmp_path / name).mkdir()
        model = network(tmp_path / name, body)
        command = build(model.path, options=BuildOptions(precision=Precision.FP16, shapes=("x=1:2:4",))).command
        assert (command.line is None) == (name == "shared")
        assert ("lint --fix" in command.reason) == (name == "shared")


def test_an_existing_timing_cache_is_read(tmp_path: Path) -> None:
    assert read_timing_cache(None) is None
    assert read_timing_cache(tmp_path / "t.cache") is None
    (tmp_path / "t.cache").write_bytes(b"times")
    assert read_timing_cache(tmp_path / "t.cache") == b"times"


# ── table ──


def test_the_table_beside_the_model_is_used(tmp_path: Path) -> None:
    model = network(tmp_path)
    assert find_table_scales(model, BuildOptions(), None) is None
    path = write_table(tmp_path / "net.calib", model=model.sha256)
    for precision in (Precision.INT8, Precision.BEST):
        scales = find_table_scales(model, BuildOptions(precision=precision), None)
        assert scales is not None
        assert (scales.path, scales.table.scales, scales.sha256) == (path, TABLE.scales, sha256_of(path.read_bytes()))
        assert scales.provenance is not None
        assert scales.provenance.rule == "entropy"
    assert find_table_scales(model, BuildOptions(precision=Precision.FP16), None) is None


def test_a_network_with_q_dq_uses_no_table_by_default(tmp_path: Path) -> None:
    model = network(tmp_path, QDQ)
    write_table(tmp_path / "net.calib", model="another")
    assert find_table_scales(model, BuildOptions(), None) is None


def test_a_given_table_without_provenance_is_used(tmp_path: Path) -> None:
    scales = find_table_scales(network(tmp_path), BuildOptions(), write_table(tmp_path / "their.cache"))
    assert scales is not None
    assert scales.provenance is None


def test_tables_of_other_networks_are_refused(tmp_path: Path) -> None:
    model = network(tmp_path)
    with pytest.raises(UsageError, match="a table needs INT8, but the precision is fp16"):
        find_table_scales(model, BuildOptions(precision=Precision.FP16), write_table(tmp_path / "a"))
    with pytest.raises(StaleError, match=r"made for another network \(net\.onnx, 123456789012\)"):
        find_table_scales(model, BuildOptions(), write_table(tmp_path / "b", model="1234567890123456"))
    with pytest.raises(StaleError, match="was changed after quantkit wrote it"):
        find_table_scales(model, BuildOptions(), write_table(tmp_path / "c", model=model.sha256, changed=True))
    with pytest.raises(TableError):
        find_table_scales(model, BuildOptions(), tmp_path / "none")


# ── reuse ──


def engine(folder: Path, record: EngineRecord | None, content: bytes = PLAN) -> Path:
    path = folder / "net.engine"
    path.write_bytes(content)
    if record is not None:
        engine_record_path(path).write_bytes(engine_record_bytes(record))
    return path


def test_an_engine_from_the_same_inputs_is_reused(tmp_path: Path) -> None:
    model = network(tmp_path)
    write_table(tmp_path / "net.calib", model=model.sha256)
    options = BuildOptions(exclude=("Softmax",), workspace=1 << 20)
    scales = find_table_scales(model, options, None)
    assert scales is not None
    wanted = engine_identity(model, options, RANGES, scales, "8.6.1", "NVIDIA H200")
    use = TableUse(file="net.calib", sha256=scales.sha256, header=TABLE.header.text, rule="entropy", share=0.8)
    there = record(
        model=ModelRecord(file="m.onnx", sha256=model.sha256),
        options=options.document(),
        table=use,
        trtexec="trtexec x",
        quantkit=__version__,
    )
    found = reuse_engine(engine(tmp_path, there), wanted, 0.8)
    assert (found.reused, found.record, found.command) == (True, there, TrtexecCommand("trtexec x"))
    assert "reused" in found.notes[0]
    with pytest.raises(TableError, match=r"net\.engine was built with a table that covers 80% of") as caught:
        reuse_engine(engine(tmp_path, there), wanted, 0.9)
    assert "--min-coverage" in caught.value.remedy


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        ("TensorRT (was 10.3.0, now 8.6.1)", {"tensorrt": "10.3.0"}),
        ("GPU (was NVIDIA H100, now NVIDIA H200)", {"gpu": "NVIDIA H100"}),
        ("model", {"model": ModelRecord(file="net.onnx", sha256="n")}),
        ("table", {"table": SCALES.model_copy(update={"sha256": "u"})}),
        ("rule of the table (was mse, now entropy)", {"table": SCALES.model_copy(update={"rule": "mse"})}),
        ("quantkit (was 0, now 1)", {"quantkit": "0"}),
        (
            "shapes (x was 1x3x8x8:2x3x8x8:8x3x8x8, now 1x3x8x8:2x3x8x8:4x3x8x8)",
            {"shapes": {"x": "1x3x8x8:2x3x8x8:8x3x8x8"}},
        ),
        ("options (fp16 was no, now yes)", {"options": BuildOptions(fp16=False).document()}),
        ("options (level was 5, now 3)", {"options": BuildOptions(level=5).document()}),
    ],
)
def test_an_engine_from_other_inputs_is_refused_with_what_changed(
    tmp_path: Path, told: str, changed: dict[str, Any]
) -> None:
    there: dict[str, Any] = {"table": SCALES}
    wanted = record(**there).identity()
    assert reuse_engine(engine(tmp_path, record(**there)), wanted, 1.0).reused
    with pytest.raises(StaleError) as caught:
        reuse_engine(engine(tmp_path, record(**{**there, **changed})), wanted, 1.0)
    assert caught.value.problem == f"{tmp_path / 'net.engine'} was made with something else: {told}"


def test_without_a_table_it_does_not_matter_which_quantkit_built(tmp_path: Path) -> None:
    assert reuse_engine(engine(tmp_path, record(quantkit="0")), record(quantkit="1").identity(), 1.0).reused


def test_an_engine_changed_on_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StaleError, match="was changed after quantkit wrote it"):
        reuse_engine(engine(tmp_path, record(), b"another"), record().identity(), 0.9)
    engine_record_path(tmp_path / "net.engine").unlink()
    with pytest.raises(StaleError, match="has no record of how it was built") as caught:
        reuse_engine(tmp_path / "net.engine", record().identity(), 0.9)
    assert "--force" in caught.value.remedy


def test_identity_has_the_same_parts_as_that_of_a_record(tmp_path: Path) -> None:
    parts = engine_identity(network(tmp_path), BuildOptions(), RANGES, None, "8.6.1", "NVIDIA H200")
    assert list(parts) == list(record().identity())
    assert (parts["rule of the table"], parts["quantkit"]) == (None, None)


# ── warnings ──


def layer(precision: str, kind: str = "CaskConvolution") -> EngineLayer:
    return EngineLayer(name="x", nodes=("x",), kind=kind, precision=precision)


def built(**changed: Any) -> BuiltEngine:
    return BuiltEngine(Path("net.engine"), record(**changed), TrtexecCommand("trtexec"), False)


def test_layers_that_compute_are_counted() -> None:
    found = built(
        layers=(layer("INT8"), layer("FP16"), layer("INT8"), layer("FP32", "Reformat"), layer("FP32", "NoOp"))
    )
    assert found.counts == {"INT8": 2, "FP16": 1}
    assert found.warnings == ()


@pytest.mark.parametrize(("precision", "warned"), [("int8", True), ("best", True), ("fp16", False), ("fp32", False)])
def test_an_int8_engine_without_int8_layers_causes_a_warning(precision: str, warned: bool) -> None:
    layers = (layer("FP16"), layer("INT8", "Reformat"))
    warnings = built(precision=precision, layers=layers, explicit=True).warnings
    assert [text.startswith("no layer of this engine computes in INT8") for text in warnings] == [True] * warned
    assert built(precision=precision, layers=layers).warnings == ()  # without scales INT8 was not allowed
    assert built(precision=precision).warnings == ()


@pytest.mark.parametrize("fp16", [True, False])
def test_no_fp16_is_advised_where_fp16_was_allowed(fp16: bool) -> None:
    options = BuildOptions(fp16=fp16).document()
    (warning,) = built(options=options, layers=(layer("FP16"),), explicit=True).warnings
    assert ("--no-fp16" in warning) is fp16


def test_an_engine_that_lists_only_names_causes_no_warning() -> None:
    assert built(layers=(layer("unknown", "unknown"),)).warnings == ()


@pytest.mark.parametrize(("count", "shown"), [(1, ": t0"), (3, ": t0, t1, t2"), (4, ": t0, t1, t2 …")])
def test_warnings_include_tensorrts_own_and_tensors_without_scale(count: int, shown: str) -> None:
    missing = tuple(f"t{i}" for i in range(count))
    use = TableUse(file="t", sha256="t", header="h", share=0.9, missing=missing, inner=("inside a HardSwish",))
    said, scales = built(warnings=("careful",), table=use, layers=(layer("INT8"),)).warnings
    assert said == "TensorRT: careful"
    assert scales.startswith(f"{count} tensor")
    assert scales.endswith(shown)


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("strong", [False, True])
def test_the_line_for_trtexec_names_the_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, progress: bool, strong: bool
) -> None:
    found = SimpleNamespace(progress=progress, always_strong=strong)
    monkeypatch.setattr("quantkit.engines.build.tensorrt", lambda: None)
    monkeypatch.setattr("quantkit.engines.build.detect_features", lambda _: found)
    model = network(tmp_path)
    scales = find_table_scales(model, BuildOptions(), write_table(tmp_path / "net.calib"))
    made: Any = SimpleNamespace(converted=False, kept=())
    line = trtexec_command(model, tmp_path / "e", BuildOptions(), RANGES, scales, tmp_path / "t.cache", made).line
    assert line is not None
    words = line.split()
    assert f"--onnx={model.path}" in words
    assert f"--calib={tmp_path / 'net.calib'}" in words
    assert f"--timingCacheFile={tmp_path / 't.cache'}" in words
    assert "--optShapes=x:2x3x8x8" in words
    assert ("--preview=+profileSharing0806" in words) is not progress
    assert ("--int8" in words) is not strong
    assert "--stronglyTyped" not in words
