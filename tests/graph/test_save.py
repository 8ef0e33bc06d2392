"""Models on disk: what is written is what was there, whole or not at all, of any size."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from quantkit.errors import ModelError, OutputError
from quantkit.graph import load_model
from quantkit.graph import save as saving
from quantkit.graph.identity import model_identity
from quantkit.graph.save import data_path, saved_files, write_model

RANDOM = np.random.default_rng(3)
SQUARE = RANDOM.normal(size=(40, 40)).astype(np.float32)


def network(**weights: NDArray[Any]) -> onnx.ModelProto:
    text = """(float[N, 40] x, bool b) => (float[N, 40] y) {
        c = Constant<value = float[2] {1.0, 2.0}>() r = Reshape(x, shape) m = MatMul(r, w) n = MatMul(m, v)
        s = If(b)<then_branch = t () => (float[N, 40] p) { p = Relu(n) }, else_branch = e () => (float[N, 40] q)
        <float[1] k = {2.0}> { q = Mul(n, k) }> y = Identity(s) }"""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')
    square = {"w": SQUARE, "v": np.eye(40, dtype=np.float32)}
    weights = {"shape": np.array([-1, 40]), **square, **weights}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    proto.metadata_props.add(key="a", value="b")
    proto.graph.initializer[1].doc_string = "text"
    return proto


@pytest.fixture
def external(tmp_path: Path) -> onnx.ModelProto:
    """A model whose weights all lie in a file in `tmp_path`/source; its proto, which does not hold them."""
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "net.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="net.bin", size_threshold=0, convert_attribute=True)
    return onnx.load(path, load_external_data=False)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(path: Path) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {"x": np.ones((3, 40), np.float32), "b": np.array(False)})[0]
    return result


def test_a_small_model_is_one_file(tmp_path: Path) -> None:
    proto, output = network(), tmp_path / "net.onnx"
    assert saved_files(proto, output) == (output,)
    assert write_model(proto, tmp_path, output) == (output,)
    assert onnx.load(output) == proto
    assert list(content_of(tmp_path)) == ["net.onnx"]


def test_external_weights_are_one_file_beside_it(tmp_path: Path, external: onnx.ModelProto) -> None:
    output = tmp_path / "out.onnx"
    before = external.SerializeToString(deterministic=True)
    assert saved_files(external, output) == (output, tmp_path / "out.onnx.data")
    assert write_model(external, tmp_path / "source", output) == saved_files(external, output)
    assert set(content_of(tmp_path)) == {"out.onnx", "out.onnx.data"}
    onnx.checker.check_model(str(output), full_check=True)
    written = onnx.load(output, load_external_data=False)
    placed = {t.name: {e.key: e.value for e in t.external_data} for t in saving.all_tensors(written) if t.external_data}
    assert {name: place["location"] for name, place in placed.items()} == dict.fromkeys("wv", "out.onnx.data")
    assert next(t for t in written.graph.initializer if t.name == "shape").raw_data, "shapes stay in the graph"
    inside = onnx.load(output)
    assert [numpy_helper.to_array(t).tobytes() for t in saving.all_tensors(inside)] == [
        numpy_helper.to_array(t).tobytes() for t in saving.all_tensors(onnx.load(tmp_path / "source" / "net.onnx"))
    ]
    write_model(network(), tmp_path, tmp_path / "one.onnx")
    np.testing.assert_array_equal(run(output), run(tmp_path / "one.onnx"))
    assert load_model(output).sha256 == model_identity(external, tmp_path / "source", "")
    assert external.SerializeToString(deterministic=True) == before


def test_the_same_bytes_twice(tmp_path: Path, external: onnx.ModelProto) -> None:
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_model(external, tmp_path / "source", tmp_path / name / "net.onnx")
        written.append(content_of(tmp_path / name))
    assert written[0] == written[1]


def test_what_would_pass_two_gigabytes_gets_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "ONE_FILE", 9_000)
    proto, output = network(), tmp_path / "net.onnx"
    assert write_model(proto, tmp_path, output) == (output, data_path(output))
    whole = onnx.load(output)
    for tensor in whole.graph.initializer:
        tensor.ClearField("data_location")
    assert whole == proto, "initializers' texts, metadata and all"
    assert output.stat().st_size < 2_000
    assert load_model(output).sha256 == model_identity(proto, tmp_path, "")


def test_a_graph_that_is_too_large_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "ONE_FILE", 500)
    with pytest.raises(OutputError, match=r"cannot write .*net\.onnx: .* operators alone"):
        write_model(network(), tmp_path, tmp_path / "net.onnx")
    assert content_of(tmp_path) == {}


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, (1 << 16) + 4])
def test_large_weights_start_at_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(saving, "ONE_FILE", 10_000)
    weights = {name: np.arange(count, dtype=np.int8) for name, count in (("a", 1025), ("b", size), ("c", 1027))}
    write_model(network(**weights), tmp_path, tmp_path / "net.onnx")
    for tensor in onnx.load(tmp_path / "net.onnx", load_external_data=False).graph.initializer:
        if tensor.external_data:
            place = {e.key: int(e.value) for e in tensor.external_data if e.key != "location"}
            assert place["offset"] % (4096 if place["length"] >= 1 << 16 else 64) == 0
            assert place["length"] == np.prod(tensor.dims) * (1 if tensor.name in "abc" else 4)


def test_the_weights_of_the_source_are_never_replaced(tmp_path: Path, external: onnx.ModelProto) -> None:
    source = tmp_path / "source"
    (source / "net.bin").rename(source / "net.onnx.data")
    for tensor in saving.all_tensors(external):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "net.onnx.data"
    before = content_of(source)
    link = tmp_path / "link"
    link.symlink_to(source)
    for output in (source / "net.onnx", link / "net.onnx", source / "net.onnx.data"):
        with pytest.raises(OutputError, match="holds the weights of the source model") as caught:
            write_model(external, source, output)
        assert "--output" in caught.value.remedy
    assert content_of(source) == before
    write_model(external, source, source / "other.onnx")
    assert load_model(source / "other.onnx").sha256 == model_identity(external, source, "")


@pytest.mark.parametrize("part", ["missing", "short"])
def test_a_missing_weight_leaves_nothing(tmp_path: Path, external: onnx.ModelProto, part: str) -> None:
    data = tmp_path / "source" / "net.bin"
    if part == "short":
        os.truncate(data, data.stat().st_size - 1)
    else:
        data.unlink()
    with pytest.raises(ModelError, match=r"net\.bin"):
        write_model(external, tmp_path / "source", tmp_path / "out.onnx")
    assert content_of(tmp_path) == {}


class Failing:
    """Fails at the n-th call of a function, with an error of the kind that is asked for."""

    def __init__(self, real: Any, at: int, error: BaseException) -> None:
        self.real, self.left, self.error = real, at, error

    def __call__(self, *args: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.real(*args)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize(("error", "raised"), [(FULL, OutputError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_an_error_leaves_everything_as_it_was(
    tmp_path: Path, external: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, old: bool, at: int, error: Any,
    raised: Any,
) -> None:  # fmt: skip
    """At every rename: the weights, and the model."""
    for name in ("out.onnx", "out.onnx.data"):
        if old:
            (tmp_path / name).write_text(f"old {name}")
    before = content_of(tmp_path)
    monkeypatch.setattr(os, "replace", Failing(os.replace, at, error))
    with pytest.raises(raised, match="cannot write" if raised is OutputError else None):
        write_model(external, tmp_path / "source", tmp_path / "out.onnx")
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, external: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def some(*_: Any) -> Iterator[bytes]:
        yield b"1234"
        raise error

    monkeypatch.setattr(saving, "tensor_bytes", some)
    with pytest.raises(OutputError if error is FULL else KeyboardInterrupt) as caught:
        write_model(external, tmp_path / "source", tmp_path / "out.onnx")
    assert error is not FULL or "free some space" in caught.value.remedy  # type: ignore[union-attr]
    assert content_of(tmp_path) == {}


def test_places_that_cannot_be_written(tmp_path: Path, external: onnx.ModelProto) -> None:
    (tmp_path / "out.onnx").mkdir()
    for proto in (external, network()):
        with pytest.raises(OutputError, match=r"cannot write .*: .*directory"):
            write_model(proto, tmp_path / "source", tmp_path / "out.onnx")
        with pytest.raises(OutputError, match=r"cannot write .*: No such file or directory"):
            write_model(proto, tmp_path / "source", tmp_path / "nowhere" / "out.onnx")
    assert content_of(tmp_path) == {}


def test_old_files_are_replaced(tmp_path: Path, external: onnx.ModelProto) -> None:
    for name in ("out.onnx", "out.onnx.data"):
        (tmp_path / name).write_text("old")
    write_model(external, tmp_path / "source", tmp_path / "out.onnx")
    assert set(content_of(tmp_path)) == {"out.onnx", "out.onnx.data"}
    run(tmp_path / "out.onnx")


def test_memory_stays_under_one_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a weight go to the disk before the next is read."""
    tensor = TensorProto(name="big", data_type=TensorProto.INT8, dims=[10 << 20], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="big.bin")
    (tmp_path / "big.bin").write_bytes(bytes(10 << 20))
    proto = network()
    proto.graph.initializer.append(tensor)
    longest = 0
    real = saving.tensor_bytes

    def watched(*arguments: Any) -> Iterator[bytes]:
        nonlocal longest
        for piece in real(*arguments):
            longest = max(longest, len(piece))
            yield piece

    monkeypatch.setattr(saving, "tensor_bytes", watched)
    write_model(proto, tmp_path, tmp_path / "out.onnx")
    assert longest == 4 << 20
    assert (tmp_path / "out.onnx.data").stat().st_size > 10 << 20


DTYPES = [np.float32, np.float16, np.int8, np.int64, np.bool_, np.float64]


WEIGHTS = st.tuples(st.sampled_from(DTYPES), st.integers(0, 3000), st.sampled_from(["raw", "typed", "file"]))


@given(st.lists(WEIGHTS, max_size=6))
@settings(max_examples=30)
def test_what_is_read_is_what_was_written(weights: list[tuple[Any, int, str]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        proto = network()
        for number, (dtype, count, form) in enumerate(weights):
            values = RANDOM.integers(0, 2, size=count).astype(dtype)
            tensor = numpy_helper.from_array(values, f"w{number}")
            if form == "typed":
                tensor = helper.make_tensor(f"w{number}", tensor.data_type, [count], values)
            if form == "file":
                (folder / f"{number}.bin").write_bytes(b"xyz" + values.tobytes())
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=f"{number}.bin")
                tensor.external_data.add(key="offset", value="3")
            proto.graph.initializer.append(tensor)
        files = write_model(proto, folder, folder / "out.onnx")
        assert len(files) == (2 if any(form == "file" for _, _, form in weights) else 1)
        assert load_model(folder / "out.onnx").sha256 == model_identity(proto, folder, "")
