"""The record beside an engine: written and read back the same, and refused where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.backends.engine_record import (
    EngineLayer,
    EngineRecord,
    TableUse,
    TensorRecord,
    engine_record_bytes,
    engine_record_path,
    read_engine_record,
)
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.errors import BackendError
from quantkit.provenance import ModelRecord

texts = st.text(max_size=8)
names = st.lists(texts, max_size=3).map(tuple)
counts = st.integers(0, 1 << 40)
tensors = st.lists(
    st.builds(TensorRecord, name=texts, dtype=texts, shape=st.lists(st.integers(-1, 9), max_size=4).map(tuple)),
    max_size=2,
).map(tuple)
records = st.builds(
    EngineRecord,
    quantkit=texts,
    file=texts,
    sha256=texts,
    bytes=counts,
    tensorrt=texts,
    gpu=texts,
    model=st.builds(ModelRecord, file=texts, sha256=texts),
    precision=texts,
    shapes=st.dictionaries(texts, texts, max_size=2),
    options=st.dictionaries(texts, st.none() | st.booleans() | counts | texts | st.lists(texts), max_size=4),
    table=st.none()
    | st.builds(
        TableUse, file=texts, sha256=texts, header=texts, share=st.floats(0, 1), completed=names, missing=names
    ),
    seconds=st.floats(0, 1e6) | st.integers(0, 9).map(float),
    device_memory=counts,
    layers=st.lists(
        st.builds(EngineLayer, name=texts, nodes=names, kind=texts, precision=texts, reason=st.none() | texts),
        max_size=3,
    ).map(tuple),
    kept=names,
    warnings=names,
    trtexec=st.none() | texts,
    no_trtexec=texts,
    inputs=tensors,
    outputs=tensors,
)

TABLE = TableUse(file="t", sha256="d", header="h", share=1.0)


def record(**changed: Any) -> EngineRecord:
    settings: dict[str, Any] = {
        "quantkit": "1",
        "file": "m.engine",
        "sha256": "a",
        "bytes": 3,
        "tensorrt": "8.6.1",
        "gpu": "NVIDIA H200",
        "model": ModelRecord(file="m.onnx", sha256="b"),
        "precision": "int8",
        "shapes": {},
        "options": BuildOptions().document(),
        "seconds": 1.5,
        "device_memory": 7,
        "layers": (),
    }
    return EngineRecord(**{**settings, **changed})


@given(record=records)
def test_a_record_goes_round(tmp_path_factory: pytest.TempPathFactory, record: EngineRecord) -> None:
    engine = tmp_path_factory.getbasetemp() / "round.engine"
    engine_record_path(engine).write_bytes(engine_record_bytes(record))
    there = read_engine_record(engine)
    assert there == record
    assert there is not None
    assert there.identity() == record.identity()


@pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(exclude=("a",)), BuildOptions(Precision.FP32)])
def test_the_options_of_a_build_go_round(tmp_path: Path, options: BuildOptions) -> None:
    engine = tmp_path / "m.engine"
    engine_record_path(engine).write_bytes(engine_record_bytes(record(options=options.document())))
    there = read_engine_record(engine)
    assert there is not None
    assert there.identity()["options"] == options.document()


def test_a_record_from_before_inputs_were_kept_is_read(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    document = json.loads(engine_record_bytes(record()))
    del document["inputs"], document["outputs"], document["digest"]
    engine_record_path(engine).write_text(json.dumps(document))
    assert read_engine_record(engine) == record()


def test_where_it_lies() -> None:
    assert engine_record_path(Path("a/m.h200.engine")) == Path("a/m.h200.engine.json")


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_engine_record(tmp_path / "m.engine") is None


DAMAGES: dict[str, tuple[Any, str]] = {
    "unknown": (1, "unknown: extra inputs"),
    "format": (2, "format: "),
    "bytes": ("3", "bytes: "),
    "seconds": ("soon", "seconds: "),
    "layers": ([{"name": "x"}], r"layers\.0\.nodes: field required"),
    "model": ("m.onnx", "model: "),
    "table": ({"file": "t"}, r"table\.sha256: field required"),
}


@pytest.mark.parametrize("field", DAMAGES)
def test_a_damaged_record_is_refused_with_the_place(tmp_path: Path, field: str) -> None:
    engine = tmp_path / "m.engine"
    value, problem = DAMAGES[field]
    document = {**json.loads(engine_record_bytes(record())), field: value}
    engine_record_path(engine).write_text(json.dumps(document))
    with pytest.raises(BackendError, match=f"is not a record of this quantkit: {problem}") as caught:
        read_engine_record(engine)
    assert str(engine_record_path(engine)) in caught.value.problem


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    engine = tmp_path / "m.engine"
    engine_record_path(engine).write_bytes(content)
    with pytest.raises(BackendError, match="is not a record of this quantkit"):
        read_engine_record(engine)


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    engine_record_path(engine).mkdir()
    with pytest.raises(BackendError, match="check the path"):
        read_engine_record(engine)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"tensorrt": "10.3.0"}, ["TensorRT"]),
        ({"gpu": "other"}, ["GPU"]),
        ({"model": ModelRecord(file="m.onnx", sha256="c")}, ["model"]),
        ({"table": TABLE}, ["table", "quantkit"]),
        ({"table": TABLE.model_copy(update={"rule": "mse"})}, ["table", "rule of the table", "quantkit"]),
        ({"shapes": {"x": "1:2:3"}}, ["shapes"]),
        ({"options": BuildOptions(level=1).document()}, ["options"]),
        ({"seconds": 9.0, "bytes": 1, "model": ModelRecord(file="n.onnx", sha256="b")}, []),
        ({"quantkit": "2"}, []),
    ],
)
def test_what_decides_about_an_engine(changed: dict[str, Any], names: list[str]) -> None:
    one, other = record().identity(), record(**changed).identity()
    assert [key for key in one if one[key] != other[key]] == names


def test_which_quantkit_filled_the_scales_in_decides() -> None:
    one, other = (record(table=TABLE, quantkit=version).identity() for version in "12")
    assert [key for key in one if one[key] != other[key]] == ["quantkit"]
