"""quantize with a GPU profile: operators stay float where INT8 was not faster, with the GPU in the reason."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit.cli import invoke
from quantkit.errors import ModelError, StaleError, UsageError
from quantkit.gpu_profile.network_parts import NetworkParts, Part, TensorUse
from quantkit.gpu_profile.operator_size import OperatorKind, OperatorSize
from quantkit.gpu_profile.profile import BorderTime, GpuProfile, OperatorTime, write_profile
from quantkit.gpu_profile.split import split_network
from quantkit.quantization import for_gpu
from quantkit.table import Algorithm, CalibrationTable, Header, write_table
from tests.support.qdq import every_scale, model_of, noise

WHERE = "NVIDIA Imaginary, TensorRT 8.6.0, 2026-12-01"
HEAD = "(float[N, 64, 16, 16] x) => (float[N, C, H, W] y)"
CHAIN = "a = Conv(x, w) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, v) d = Relu(c) y = Conv(d, w)"


def profile_of(*times: tuple[int, float, float], border: float = 0.5) -> GpuProfile:
    """kernel, microseconds in FP16 and in INT8, of 64 channels at 16 × 16."""
    operators = [
        OperatorTime(kind="conv", inputs=64, outputs=64, rows=256, kernel=kernel, fp16=fp16, int8=int8)
        for kernel, fp16, int8 in times
    ]
    return GpuProfile(
        gpu="NVIDIA Imaginary", compute_capability="9.0", tensorrt="8.6.0", date="2026-12-01", level=1,
        operators=tuple(operators), borders=(BorderTime(values=64 * 256, quantize=border, dequantize=border),),
    )  # fmt: skip


def written(folder: Path, text: str, **weights: Any) -> tuple[Path, Path]:
    """Write a network and a table of all its tensors."""
    model = model_of(f"{HEAD} {{ {text} }}", **weights)
    onnx.save(model.proto, folder / "net.onnx")
    table = CalibrationTable(Header(Algorithm.ENTROPY_2, 8600), every_scale(model))
    write_table(table, folder / "net.calib")
    return folder / "net.onnx", folder / "net.calib"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, CHAIN, w=noise(64, 64, 1, 1), v=noise(64, 64, 3, 3))


def quantized(files: tuple[Path, Path], profile: Any = None, **more: Any) -> quantkit.Quantization:
    options = {"tensorrt_version": "8.6.0", "gpu_profile": profile, **more}
    return quantkit.quantize(files[0], table=files[1], **options)


def test_slower_operators_stay_float_with_the_gpu_in_the_reason(files: tuple[Path, Path]) -> None:
    made = quantized(files, profile_of((1, 4.0, 5.5), (3, 9.0, 5.0)))
    why = f"INT8 is not faster here: {WHERE}: about 4.0 µs in FP16, 5.5 in INT8"
    assert {node: str(reason) for node, reason in made.left.items()} == {"a": why, "y": why}
    assert set(made.pairs) == {"b"}
    (note,) = [text for text in made.notes if WHERE in text]
    assert "batch 1: INT8 in 1 of 3 operators" in note
    assert "about 0.014 ms" in note
    assert "(all in FP16 0.017, all in INT8 0.017)" in note
    assert str(next(iter(made.left.values())).summary) == f"INT8 is not faster here: {WHERE}"


def test_without_a_profile_and_with_all_faster_nothing_changes(files: tuple[Path, Path]) -> None:
    plain, fast = quantized(files), quantized(files, profile_of((1, 4.0, 2.0), (3, 9.0, 5.0)))
    assert plain.pairs == fast.pairs
    assert not plain.left
    assert not fast.left
    assert plain.proto.graph == fast.proto.graph


def test_a_border_can_cost_more_than_int8_gains(files: tuple[Path, Path]) -> None:
    times = ((1, 4.0, 5.0), (3, 9.0, 8.0))
    assert set(quantized(files, profile_of(*times, border=0.1)).pairs) == {"b"}
    with pytest.raises(ModelError, match="INT8 is not faster here: NVIDIA Imaginary") as caught:
        quantized(files, profile_of(*times, border=2.0))
    assert "ship the FP16 engine" in str(caught.value.remedy)


def test_include_and_unknown_operators_follow_the_user_and_the_default(files: tuple[Path, Path]) -> None:
    slow = profile_of((1, 4.0, 5.5))
    made = quantized(files, slow)
    assert set(made.left) == {"a", "y"}
    assert any("1 operator is far from all that was measured, and stays INT8: c" in text for text in made.notes)
    assert set(quantized(files, slow, include=["a"]).left) == {"y"}
    assert set(quantized(files, slow, gpu_batch=65_536).left) == set(), "nothing near was measured"


def test_what_was_not_estimated_is_said(files: tuple[Path, Path]) -> None:
    slow = profile_of((1, 4.0, 5.5), border=0.5)
    (note,) = [text for text in quantized(files, slow).notes if WHERE in text]
    assert "INT8 in 1 of 3 operators with weights, about 0.009 ms for 2 of them (all in FP16 0.008" in note
    assert any("by this estimate all in FP16 is faster" in text for text in quantized(files, slow).notes)
    assert not any("FP16 is faster" in t for t in quantized(files, profile_of((1, 4.0, 5.5), (3, 9.0, 5.0))).notes)
    far = quantized(files, slow, gpu_batch=65_536).notes
    assert any(f"for {WHERE}, batch 65536: the profile chooses nothing" in text for text in far)
    assert not any(" ms for " in text for text in far)


def test_what_moves_values_behind_a_pair_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For TensorRT 8 the Concat has a pair, too."""
    text = "a = Conv(x, w) b = Relu(a) s = Conv(b, w) c = Concat<axis = 1>(b, s) y = Conv(c, u)"
    both = written(tmp_path, text, w=noise(64, 64, 1, 1), u=noise(64, 128, 1, 1))
    seen: list[NetworkParts] = []

    def watched(parts: NetworkParts, *rest: Any) -> Any:
        seen.append(parts)
        return split_network(parts, *rest)

    monkeypatch.setattr(for_gpu, "split_network", watched)
    eight, ten = (quantized(both, profile_of((1, 4.0, 2.0)), tensorrt_version=v) for v in ("8.6.0", "10.3.0"))
    assert "c" in eight.types
    assert "c" not in ten.types
    assert list(seen[0].parts) == ["a", "s", "y"]
    assert seen[0] == seen[1]


def test_it_is_one_of_two_ways_to_choose(files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=r"quantizes everything"):
        quantized(files, profile_of((1, 4.0, 5.0)), policy="all")
    with pytest.raises(UsageError, match="for a GPU profile"):
        quantized(files, gpu_batch=8)


def test_a_fixed_batch_is_the_batch(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[0])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, files[0])
    slow = profile_of((1, 4.0, 5.5), (3, 9.0, 5.0))
    assert set(quantized(files, slow, gpu_batch=1).left) == {"a", "y"}
    with pytest.raises(UsageError, match="the batch size of the model is 1, not 8"):
        quantized(files, slow, gpu_batch=8)


def test_a_written_model_is_reused_for_its_profile_alone(files: tuple[Path, Path]) -> None:
    target, path = files[0].with_suffix(".int8.onnx"), files[0].with_suffix(".gpu.json")
    write_profile(profile_of((1, 4.0, 5.5), (3, 9.0, 5.0)), path)

    def again(**more: Any) -> quantkit.Quantization:
        return quantkit.quantize(files[0], target, table=files[1], tensorrt_version="8.6.0", gpu_profile=path, **more)

    assert not again().reused
    found = again()
    assert found.reused
    assert set(found.left) == {"a", "y"}
    write_profile(profile_of((1, 4.0, 3.5), (3, 9.0, 5.0)), path)
    with pytest.raises(StaleError, match="GPU profile"):
        again()
    assert not again(force=True).left
    with pytest.raises(StaleError, match="made with something else: GPU profile"):
        quantkit.quantize(files[0], target, table=files[1], tensorrt_version="8.6.0")
    plain = target.with_name("plain.onnx")
    quantkit.quantize(files[0], plain, table=files[1], tensorrt_version="8.6.0")
    with pytest.raises(StaleError, match="GPU profile"):
        quantkit.quantize(files[0], plain, table=files[1], tensorrt_version="8.6.0", gpu_profile=path)


def test_the_command_names_the_gpu_where_nodes_stay_float(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = files[0].with_suffix(".gpu.json")
    write_profile(profile_of((1, 4.0, 5.5), (3, 9.0, 5.0)), path)
    line = ["quantize", str(files[0]), "--table", str(files[1]), "--tensorrt-version", "8.6.0", "--for", str(path)]
    assert invoke([*line, "--for-batch", "1"]) == 0
    shown = capsys.readouterr()
    assert f"  2  INT8 is not faster here: {WHERE}: a, y" in shown.out
    assert "INT8 in 1 of 3 operators with weights" in shown.err
    assert invoke([*line, "--for-batch", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["left"]["a"].startswith(f"INT8 is not faster here: {WHERE}: about 4.0 µs")
    assert invoke([*line[:-2], "--for", str(files[1])]) == 2


def test_another_tensorrt_is_said(files: tuple[Path, Path]) -> None:
    made = quantized(files, profile_of((1, 4.0, 2.0), (3, 9.0, 5.0)), tensorrt_version="10.3.0")
    assert "the profile is of TensorRT 8.6.0, but the model for 10.3.0" in made.notes


SIZE = OperatorSize(OperatorKind.CONV, 64, 64, 256, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.floats(0, 3))
def test_a_chain_is_never_slower_than_both_precisions(kinds: list[tuple[int, bool]], border: float) -> None:
    profile = profile_of((1, 4.0, 3.0), (3, 4.0, 6.0), border=border)
    names = [f"n{k}" for k in range(len(kinds))]
    parts = {
        name: Part(name, k, OperatorSize(OperatorKind.CONV, 64, 64, 256, 3 if kinds[k][1] else 1), weighted=True)
        for k, name in enumerate(names)
    }
    between = [TensorUse("x", None, 64 * 256, {names[0]}), TensorUse("y", names[-1], 64 * 256, {None})]
    between += [TensorUse(a, a, 64 * 256, {b}) for a, b in pairwise(names)]
    split = split_network(NetworkParts(parts, tuple(between)), profile)
    assert split.chosen <= min(split.fp16, split.int8) + 1e-6
    assert not split.unknown
