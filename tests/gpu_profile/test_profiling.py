"""The profile is measured engine by engine, resumed, and read again; TensorRT is made up here."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from quantkit.cli import invoke
from quantkit.errors import BackendError, StaleError, UsageError
from quantkit.gpu_profile import measure, plan, profiling
from quantkit.gpu_profile.branch_writer import BranchWriter, branches_model
from quantkit.gpu_profile.chain import Chain
from quantkit.gpu_profile.engine_file import read_engines
from quantkit.gpu_profile.plan import EnginePlan, engines_of
from quantkit.gpu_profile.profile import load_profile
from quantkit.gpu_profile.profiling import profile
from tests.gpu_profile import fake_tensorrt

CHAINS = [
    Chain("conv", 16, 8, 1, 3), Chain("pool", 16, 8, 1, 3, stride=2, word="MaxPool"), Chain("depthwise", 16, 8, 1, 3),
    Chain("matmul", 32, 10, 1),
]  # fmt: skip


def few_plans(batches: tuple[int, ...] = (1,)) -> list[EnginePlan]:
    assert batches
    return list(engines_of(CHAINS))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "tensorrt", lambda: fake_tensorrt.TENSORRT)
    monkeypatch.setattr(measure, "open_device", lambda _=0: fake_tensorrt.Device())
    monkeypatch.setattr(profiling, "engine_plans", few_plans)
    monkeypatch.setattr(fake_tensorrt.Builder, "refuses", ())


def test_a_profile_is_written_and_read(tmp_path: Path) -> None:
    made = profile(tmp_path / "gpu.json", batches=1)
    assert made.complete
    assert load_profile(tmp_path / "gpu.json") == made.profile
    assert made.profile.where.startswith("NVIDIA Imaginary, TensorRT 8.6.0, 20")
    assert {row.kind for row in made.profile.operators} == {"conv", "depthwise", "matmul"}
    assert [border.values for border in made.profile.borders] == [16 * 8 * 8]
    assert {form.kind: set(form.forms) for form in made.profile.forms} == {
        "pool": {"before", "after", "both"}, "depthwise": {"int8", "apart"}, "matmul": {"int8"},
    }  # fmt: skip
    assert "INT8 is faster than FP16 in" in str(made)


def test_a_second_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "gpu.json"
    whole = profile(tmp_path / "whole.json").profile
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "engine_plans", lambda _: few_plans()[:2])
        profile(target)
    there = read_engines(tmp_path / "gpu.engines.json").engines
    built = []
    monkeypatch.setattr(profiling, "branches_model", lambda b, half: built.append(len(b)) or plan_model(b, half))
    assert profile(target).profile == whole
    assert len(built) == len(few_plans()) - 2
    assert read_engines(tmp_path / "gpu.engines.json").engines[:2] == there
    built.clear()
    assert profile(target).complete
    assert not built


def plan_model(branches: list[BranchWriter], half: bool) -> onnx.ModelProto:
    return branches_model(branches, half=half)


def test_files_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    profile(target, level=1)
    with pytest.raises(StaleError, match="measured with another level: 1, not 2") as caught:
        profile(target, level=2)
    assert "--force" in str(caught.value.remedy)
    assert profile(target, level=2, force=True).profile.level == 2


def test_a_chain_that_does_not_build_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt.Builder, "refuses", ("maxpool",))
    made = profile(tmp_path / "gpu.json")
    assert made.failed
    assert all("'kind': 'pool'" in text for text in made.failed)
    assert {row.kind for row in made.profile.operators} == {"conv", "depthwise", "matmul"}
    assert made.complete
    assert len(profile(tmp_path / "gpu.json").failed) == len(made.failed), "it is not tried again"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("nothing", "is not JSON"), ("[]", "is no GPU profile"), ('{"format": "quantkit GPU profile 1"}', "gpu: Field"),
        ('{"format": "quantkit GPU profile 7"}', "no GPU profile of this version"),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=problem):
        load_profile(path)
    with pytest.raises(UsageError, match="No such file"):
        load_profile(tmp_path / "none.json")


WRONG_ROWS: list[tuple[str, dict[str, object], str]] = [
    ("operators", {"fp16": float("nan")}, "operators.0.fp16"), ("operators", {"int8": float("inf")}, "less than"),
    ("operators", {"fp16": -1.0}, "greater than 0"), ("operators", {"int8": 0.0}, "greater than 0"),
    ("operators", {"fp16": 1e300}, "less than"), ("operators", {"inputs": 0}, "operators.0.inputs"),
    ("operators", {"rows": -5}, "operators.0.rows"), ("operators", {"kernel": 0.0}, "operators.0.kernel"),
    ("operators", {"outputs": 10**400}, "operators.0.outputs"), ("operators", {"kind": "nothing"}, "operators.0.kind"),
    ("operators", {"width": -3}, "operators.0.width"), ("borders", {"values": 0}, "borders.0.values"),
    ("borders", {"quantize": float("nan")}, "borders.0.quantize"), ("forms", {"fp16": 0.0}, "forms.0.fp16"),
    ("", {"tensorrt": "ten"}, "tensorrt: "), ("", {"gpu": ""}, "gpu: "),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "wrong", "problem"), WRONG_ROWS)
def test_values_that_no_gpu_gives_are_refused(
    tmp_path: Path, rows: str, wrong: dict[str, object], problem: str
) -> None:
    path = tmp_path / "gpu.json"
    profile(path)
    document = json.loads(path.read_text())
    (document[rows][0] if rows else document).update(wrong)
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=problem) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="is not JSON"):
        load_profile(tmp_path / "gpu.json")


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    target.write_text("mine")
    with pytest.raises(StaleError, match="already exists"):
        profile(target)
    assert target.read_text() == "mine"
    profile(target, force=True)
    (tmp_path / "gpu.engines.json").unlink()
    with pytest.raises(StaleError, match="already exists"):  # perhaps the profile of another GPU
        profile(target)


@pytest.mark.parametrize("key", ["quantized", "branches", "layers", "overhead"])
def test_damaged_engines_are_refused(tmp_path: Path, key: str) -> None:
    profile(tmp_path / "gpu.json")
    path = tmp_path / "gpu.engines.json"
    document = json.loads(path.read_text())
    del document["engines"][0][key]
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="holds no measured engines"):
        read_engines(path)
    with pytest.raises(StaleError, match="already exists"):
        profile(tmp_path / "gpu.json")


def test_times_do_not_depend_on_the_order_of_engines(tmp_path: Path) -> None:
    profile(tmp_path / "gpu.json")
    path = tmp_path / "gpu.engines.json"
    file = read_engines(path)
    there = file.profile
    file.engines.reverse()
    turned = file.profile
    assert sorted(map(repr, turned.operators)) == sorted(map(repr, there.operators))


def test_engines_are_one_a_line(tmp_path: Path) -> None:
    profile(tmp_path / "gpu.json")
    text = (tmp_path / "gpu.engines.json").read_text()
    assert json.loads(text)["tensorrt"] == "8.6.0"
    assert len(text.splitlines()) == 2 + len(few_plans())


def test_plans_stay_small_enough_for_small_gpus() -> None:
    for made in plan.engine_plans():
        values = {(c.batch * c.channels * c.size**2) for c, _ in made.branches if c.kind not in plan.ALONE}
        assert sum(values) <= plan.MOST_VALUES


def test_the_command_shows_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "gpu.json"
    assert invoke(["profile", "-o", str(target), "--batch", "1"]) == 0
    shown = capsys.readouterr().out
    assert "NVIDIA Imaginary, TensorRT 8.6.0" in shown
    kinds = {line.split()[0] for line in shown.splitlines() if line[:4] in ("conv", "dept", "matm")}
    assert kinds == {"conv", "depthwise", "matmul"}
    assert invoke(["profile", "-o", str(target), "--batch", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["complete"]
    assert document["files"] == [str(target), str(tmp_path / "gpu.engines.json")]
    assert {kind["kind"] for kind in document["kinds"]} == {"conv", "depthwise", "matmul"}


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BackendError):
        profile(tmp_path / "gpu.json")
    assert not list(tmp_path.iterdir())
