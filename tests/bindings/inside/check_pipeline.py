"""`quantkit build` from model to files, as far as that goes without a GPU."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import checked
import pytest
from checked import HAS_CALIBRATORS, NUMBER

from quantkit.backends.engine_record import read_engine_record
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.engines.build import build
from quantkit.engines.built_engine import BuiltEngine
from quantkit.errors import StaleError, TableError, UsageError
from quantkit.table import Algorithm, CalibrationTable, Header, read_table, table_bytes

pytestmark = pytest.mark.usefixtures("folder")
without_calibrators = pytest.mark.skipif(HAS_CALIBRATORS, reason="this version has calibrators")
with_calibrators = pytest.mark.skipif(not HAS_CALIBRATORS, reason="TensorRT 11 has no calibrators")

ENGINE = Path("out.engine")
BESIDE = Path("out.engine.calib")
SOME = {"x": 0.1, "c": 0.2, "a": 0.3, "y": 0.25}
ALL = {**SOME, "b": 0.5, "b_reshaped": 0.5}
"""Of every tensor of the network; `b` is a constant, whose scale follows from its values where it is not given."""


def write(scales: dict[str, float], number: int | None = NUMBER, algorithm: Algorithm = Algorithm.ENTROPY_2) -> bytes:
    version = None if algorithm is Algorithm.LEGACY else number
    content = table_bytes(CalibrationTable(Header(algorithm, version), scales))
    Path("given.calib").write_bytes(content)
    return content


def made(**how: Any) -> BuiltEngine:
    return build("float.onnx", table="given.calib", output=ENGINE, options=BuildOptions(shapes=("x=1:4:8",), **how))


def table_of(engine: BuiltEngine) -> list[str]:
    assert engine.command.line is not None
    return [word for word in shlex.split(engine.command.line) if word.startswith("--calib=")]


def test_a_float_engine(world: checked.World) -> None:
    options = BuildOptions(precision=Precision.FP32, shapes=("x=1:4:8",))
    first = build("float.onnx", output=ENGINE, options=options)
    assert ENGINE.read_bytes().startswith(b'{"magic": "plan"')
    assert read_engine_record(ENGINE) == first.record
    assert [t.name for t in (*first.record.inputs, *first.record.outputs)] == ["x", "y"]
    assert first.command.line is not None
    assert not BESIDE.exists()
    again = build("float.onnx", output=ENGINE, options=options)
    assert (again.reused, again.record, again.command) == (True, first.record, first.command)
    assert len(world.builds) == 1
    with pytest.raises(StaleError, match="something else: options"):
        build("float.onnx", output=ENGINE, options=BuildOptions(precision=Precision.TF32, shapes=("x=1:4:8",)))


@with_calibrators
def test_a_table_that_is_whole_is_named_as_it_is() -> None:
    write(ALL)
    assert table_of(made()) == ["--calib=given.calib"]
    assert not BESIDE.exists()


@with_calibrators
def test_scales_that_were_filled_in_are_kept_beside_the_engine(world: checked.World) -> None:
    content = write(SOME)
    engine = made()
    assert table_of(engine) == [f"--calib={BESIDE}"]
    assert BESIDE.read_bytes() == world.build.table_read, "what TensorRT was given"
    there = read_table(BESIDE)
    assert set(there.scales) == set(ALL)
    assert {name: there.scales[name] for name in SOME} == pytest.approx(SOME)
    assert Path("given.calib").read_bytes() == content
    record = read_engine_record(ENGINE)
    assert record is not None
    assert record.table is not None
    assert (record.table.file, record.table.completed) == ("given.calib", ("b", "b_reshaped"))
    assert record.trtexec == engine.command.line
    assert made().reused


@with_calibrators
def test_a_table_of_another_version_is_kept_under_this_ones_header(world: checked.World) -> None:
    content = write(ALL, 8501)
    with pytest.raises(TableError, match="would ignore it"):
        made()
    assert not list(Path().glob("out*"))
    engine = made(retarget=True)
    assert table_of(engine) == [f"--calib={BESIDE}"]
    assert read_table(BESIDE).header.version == NUMBER
    assert BESIDE.read_bytes() == world.build.table_read
    assert Path("given.calib").read_bytes() == content


@with_calibrators
@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.ENTROPY_2])
def test_where_there_is_no_line_the_record_says_why(algorithm: Algorithm) -> None:
    write(ALL, algorithm=algorithm)
    engine = made()
    record = read_engine_record(ENGINE)
    assert record is not None
    assert engine.command.line is None
    assert record.trtexec is None
    assert record.no_trtexec == engine.command.reason
    assert algorithm.value in record.no_trtexec


@with_calibrators
def test_an_engine_that_is_reused_says_why_as_well() -> None:
    write(ALL, algorithm=Algorithm.MIN_MAX)
    first, again = made(), made()
    assert again.reused
    assert again.command == first.command


@with_calibrators
def test_the_table_that_is_given_is_never_replaced() -> None:
    content = write(SOME)
    Path("given.calib").rename(BESIDE)
    with pytest.raises(UsageError, match="would replace"):
        build("float.onnx", table=BESIDE, output=ENGINE, options=BuildOptions(shapes=("x=1:4:8",)))
    assert BESIDE.read_bytes() == content


@without_calibrators
def test_a_table_that_went_into_qdq_has_a_record_and_no_line(world: checked.World) -> None:
    content = write(SOME, 8601)
    check_converted(made, world, content)


@pytest.mark.skipif(checked.MAJOR != 10, reason="types are strong where they are asked for")
def test_the_same_where_strong_types_are_asked_for(world: checked.World) -> None:
    content = write(SOME, 8601)
    check_converted(partial(made, strongly_typed=True), world, content)


def check_converted(make: Callable[[], BuiltEngine], world: checked.World, content: bytes) -> None:
    engine = make()
    assert world.build.layers["x_Quantize"] == "QUANTIZE"
    record = read_engine_record(ENGINE)
    assert record == engine.record
    assert record.trtexec is engine.command.line is None
    assert record.no_trtexec == "the Q/DQ pairs were inserted during the build, which trtexec cannot do"
    assert record.table is not None
    assert (record.table.file, record.table.share, record.table.missing) == ("given.calib", 1.0, ())
    assert (record.explicit, record.has_scales) == (False, True)
    assert engine.warnings == ("TensorRT: weights are denormal",)
    assert any("Q/DQ pairs from the table" in note for note in engine.notes)
    assert not BESIDE.exists()
    assert Path("given.calib").read_bytes() == content
    assert sorted(path.name for path in Path().glob("out*")) == ["out.engine", "out.engine.json"]
    again = make()
    assert (again.reused, again.record, again.command) == (True, record, engine.command)
    assert len(world.builds) == 1
