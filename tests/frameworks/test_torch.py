"""from-torch with PyTorch itself; skipped, visibly, where it is not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[torch]'")

from quantkit.cli import from_framework  # noqa: E402
from quantkit.errors import ModelError, StaleError, UsageError  # noqa: E402
from quantkit.frameworks.convert import from_torch  # noqa: E402
from quantkit.frameworks.exported import Shape  # noqa: E402
from quantkit.frameworks.pytorch import TorchOptions  # noqa: E402
from quantkit.frameworks.torch_exporters import Exporter  # noqa: E402
from quantkit.project.run import run  # noqa: E402
from quantkit.project.settings import Settings  # noqa: E402

from .digits import SPEC, digits, shifted  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.slow
EXPORTERS = list(Exporter)
IMAGE = {"image": (1, 1, 16, 16)}


class Small(nn.Module):  # type: ignore[misc, name-defined]
    """Convolutions with batch normalization, a residual connection, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, image: Any) -> Any:
        x = self.stem(image)
        x = torch.relu(self.down(x + self.block(x)))
        return self.head(self.drop(nn.functional.max_pool2d(x, 2).flatten(1)))


class FixedInside(nn.Module):  # type: ignore[misc, name-defined]
    """A loop over the samples, which exporters unroll."""

    def forward(self, x: Any) -> Any:
        return torch.stack([x[i].sum(0) for i in range(x.shape[0])])


class TwoInputs(nn.Module):  # type: ignore[misc, name-defined]
    """A lookup, a scalar, and outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)

    def forward(self, ids: Any, gain: Any) -> Any:
        rows = self.table(ids) * gain
        return {"rows": rows, "sums": rows.sum(1)}


class Attention(nn.Module):  # type: ignore[misc, name-defined]
    """Self-attention, for which PyTorch has a fused form in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x)[0]


@pytest.fixture
def small() -> Any:
    torch.manual_seed(0)
    module = Small()
    for _ in range(3):  # batch normalization that has seen something
        module(torch.randn(8, 1, 16, 16))
    return module


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_model_computes_what_the_module_computes(exporter: Exporter, small: Any, tmp_path: Path) -> None:
    made = from_torch(small, tmp_path / "m.onnx", shapes=IMAGE, options=TorchOptions(exporter=exporter))
    assert made.inputs[0].describe() == "image float32 [batch,1,16,16]"
    assert {(c.output, c.batch) for c in made.compared} == {("output", 1), ("output", 3)}
    assert small.training, "the module stays as it was"
    images = np.random.default_rng(1).standard_normal((5, 1, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = small.eval()(torch.from_numpy(images)).numpy()
    found = onnxruntime.InferenceSession(str(made.path)).run(None, {"image": images})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_nothing_of_this_machine_is_in_the_model(exporter: Exporter, small: Any, tmp_path: Path) -> None:
    made = from_torch(small, tmp_path / "m.onnx", shapes=IMAGE, options=TorchOptions(exporter=exporter))
    content = made.path.read_bytes()
    for word in (__file__, str(tmp_path), str(Path(torch.__file__).parent), ".py", "site-packages", "Small"):
        assert word.encode() not in content
    proto = onnx.load(made.path)
    assert not proto.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    assert {"stem.0/Conv", "/stem/stem.0/Conv"} & {node.name for node in proto.graph.node}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_same_module_gives_the_same_bytes(exporter: Exporter, small: Any, tmp_path: Path) -> None:
    options = TorchOptions(exporter=exporter)
    paths = [from_torch(small, tmp_path / f"{i}.onnx", shapes=IMAGE, options=options).path for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_batch_that_cannot_be_dynamic_is_reported(exporter: Exporter, tmp_path: Path) -> None:
    options = TorchOptions(exporter=exporter)
    with pytest.raises(ModelError, match="batch") as refused:
        from_torch(FixedInside(), tmp_path / "m.onnx", shapes=IMAGE, options=options)
    assert "--fixed-batch" in refused.value.remedy
    assert not list(tmp_path.iterdir())
    fixed = TorchOptions(exporter=exporter, fixed_batch=3)
    made = from_torch(FixedInside(), tmp_path / "m.onnx", shapes=IMAGE, options=fixed)
    assert made.inputs[0].shape == (3, 1, 16, 16)
    assert [c.batch for c in made.compared] == [3]
    assert made.notes == ("the batch of image is fixed at 3",)


def test_inputs_by_name_scalars_and_outputs_by_name(tmp_path: Path) -> None:
    example = {"gain": torch.tensor(2.0), "ids": torch.tensor([[1, 2, 6]])}
    made = from_torch(TwoInputs(), tmp_path / "m.onnx", example=example)
    assert [i.describe() for i in made.inputs] == ["ids int64 [batch,3]", "gain float32 []"]
    assert made.outputs == ("rows", "sums")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_attention_is_exported_in_single_operators(exporter: Exporter, tmp_path: Path) -> None:
    from_torch(Attention(), tmp_path / "m.onnx", shapes={"x": (1, 5, 16)}, options=TorchOptions(exporter=exporter))
    assert torch.backends.mha.get_fastpath_enabled()


def test_large_weights_lie_beside_the_graph(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.frameworks.torch_exporters.EMBEDDED", 0)
    made = from_torch(small, tmp_path / "m.onnx", shapes=IMAGE)
    assert [path.name for path in made.files] == ["m.onnx", "m.onnx.data"]
    assert made.files[0].stat().st_size < made.files[1].stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    made.path.unlink()
    with pytest.raises(StaleError, match=r"m\.onnx\.data already exists"):
        from_torch(small, tmp_path / "m.onnx", shapes=IMAGE)


def test_a_wrong_model_is_never_written(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantkit.frameworks import convert as verb

    def broken(*arguments: Any, **options: Any) -> Any:
        proto = original(*arguments, **options)
        bias = next(w for w in proto.graph.initializer if w.name == "head.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, "head.bias"))
        return proto

    original = verb.clean_copy
    monkeypatch.setattr(verb, "clean_copy", broken)
    with pytest.raises(ModelError, match=r"output output of the ONNX model differs from PyTorch .* by 1 at batch"):
        from_torch(small, tmp_path / "m.onnx", shapes=IMAGE)
    assert not list(tmp_path.iterdir())


def test_what_is_refused(small: Any, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    with pytest.raises(UsageError, match="no example input"):
        from_torch(small, output)
    with pytest.raises(ModelError, match=r"does not run on image float32 \[2, 3, 16, 16\]"):
        from_torch(small, output, shapes={"image": Shape((1, 3, 16, 16))})
    with pytest.raises(UsageError, match="writes opset 18 and newer"):
        from_torch(small, output, shapes=IMAGE, options=TorchOptions(opset=17, exporter=Exporter.DYNAMO))
    with pytest.raises(UsageError, match="1 outputs, but 2 names are given"):
        from_torch(small, output, shapes=IMAGE, options=TorchOptions(output_names=("a", "b")))
    with pytest.raises(UsageError, match=r"a Tensor of torch\.bfloat16"):
        from_torch(small, output, example=torch.zeros(1, 1, 16, 16, dtype=torch.bfloat16))
    with pytest.raises(UsageError, match=r"forward's first parameters are image"):
        from_torch(small, output, example={"picture": torch.zeros(1, 1, 16, 16)})
    assert not list(tmp_path.iterdir())
    output.write_bytes(b"mine")
    with pytest.raises(StaleError):
        from_torch(small, output, shapes=IMAGE)
    assert output.read_bytes() == b"mine"


def test_the_command_finds_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_net.py").write_text(
        "import torch\n\ndef net():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 2), torch.zeros(1, 4)\n"
    )
    done = CliRunner().invoke(from_framework.from_torch, ["some_net:net", "-o", "m.onnx", "--json"])
    assert done.exception is None, done.exception
    document = json.loads(done.output)
    assert document["files"] == ["m.onnx"]
    assert document["opset"] == 18
    old = CliRunner().invoke(from_framework.from_torch, ["some_net:net", "-o", "old.onnx", "--opset", "17"])
    assert old.exception is None, old.exception
    assert "by TorchScript" in old.output
    missing = CliRunner().invoke(from_framework.from_torch, ["some_net:nothing", "-o", "n.onnx"])
    assert isinstance(missing.exception, UsageError)


def test_a_trained_network_goes_in_and_comes_out_as_int8(tmp_path: Path) -> None:
    module = trained()
    images, labels = digits("test")
    made = from_torch(module, tmp_path / "digits.onnx", shapes=IMAGE)
    done = run(Settings(model=str(made.path), data=str(SPEC.parent / "images"), preprocess=str(SPEC), gpu=False,
                        evaluate={"data": str(SPEC.parent / "test")}))  # fmt: skip
    batch = images[:, None]
    with torch.no_grad():
        before = float((module.eval()(torch.from_numpy(batch)).argmax(1).numpy() == labels).mean())
    float_share, int8_share = (model.metrics["top1"] for model in done.evaluation.models[:2])
    summary = f"PyTorch {before:.1%}, ONNX {float_share:.1%}, INT8 {int8_share:.1%}"
    assert float_share == before >= 0.95, summary
    assert int8_share >= float_share - 0.015, summary
    assert f"{int8_share:.2%}".replace("%", " %") in done.files["report.html"].read_text(encoding="utf-8")


def trained() -> Any:
    """A few seconds of practice on 200 digits, the same each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, generator = Small().train(), np.random.default_rng(0)
    images, labels = digits("images")
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(15):
        order = generator.permutation(len(images))
        for part in order.reshape(5, -1):
            batch = torch.from_numpy(shifted(images[part], generator)[:, None])
            loss = nn.functional.cross_entropy(module(batch), torch.from_numpy(labels[part]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module
