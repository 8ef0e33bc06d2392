"""quantkit.toml: what is in it, what is wrong with it, and flags on top."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit.cli.options import DataChoice
from quantkit.cli.run import run_settings
from quantkit.errors import UsageError
from quantkit.project.settings import (
    SETTINGS,
    EvaluateSettings,
    RunFields,
    Settings,
    override_settings,
    read_settings,
    settings_template,
    settings_with,
)
from quantkit.view import CONTROL


def written(folder: Path, text: str) -> Path:
    path = folder / "quantkit.toml"
    path.write_text(text)
    return path


def test_the_template_is_the_defaults(tmp_path: Path) -> None:
    made = read_settings(written(tmp_path, settings_template("m.onnx", "imgs")))
    assert made == Settings(model=str(tmp_path / "m.onnx"), data="imgs")


def test_every_key_of_the_template_is_known(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ")
        for line in settings_template("m.onnx", "imgs").splitlines()
        if " = " in line or line[:1] == "["
    ]
    made = read_settings(written(tmp_path, "\n".join(lines)))
    assert made.evaluate.max_drop == 0.5
    assert made.quantize.repairs == ("bias",)
    assert made.build.shapes == ("image=1:8:32",)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "m.onnx").touch()
    (tmp_path / "here" / "val.csv").touch()
    path = written(tmp_path / "here", 'model = "m.onnx"\ndata = "mod:call"\npreprocess = "imagenet"\n'
                   'output = "out"\n[evaluate]\nlabels = "val.csv"\n')  # fmt: skip
    monkeypatch.chdir(tmp_path)
    made = read_settings(path)
    assert made.model is not None
    assert Path(made.model) == tmp_path / "here" / "m.onnx"
    assert (made.data, made.preprocess) == ("mod:call", "imagenet")
    assert made.output == str(tmp_path / "here" / "out")
    assert made.evaluate.labels == str(tmp_path / "here" / "val.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = ", "not TOML"),
        ("modell = 'x'", "toml: modell is not a known key; did you mean model?\n  → quantkit init shows all keys"),
        ("[evaluate]\nmax_dorp = 1", "evaluate.max_dorp is not a known key; did you mean max_drop?"),
        ("[tuning]\nx = 1", "tuning is not a known key\n"),
        ("[evaluate]\nmax_drop = -1", "toml: evaluate.max_drop is -1: input should be greater than or equal to 0\n"),
        ("[build]\nlevel = 9", "build.level is 9: "),
        ("[bench]\nbatches = [0]", "bench.batches.0 is 0: "),
        ("[calibrate]\nhistogram = 'fine'", "calibrate.histogram is 'fine': input should be 'tensorrt' or 'invariant'"),
        ("data = 3", "data is 3: input should be a valid string\n  → fix the file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        read_settings(written(tmp_path, text))


def test_unknown_values_are_refused(tmp_path: Path) -> None:
    for section, key in (("calibrate", "histogram"), ("quantize", "policy"), ("quantize", "weights")):
        with pytest.raises(UsageError, match=rf"{section}\.{key} is 'none': input should be"):
            read_settings(written(tmp_path, f'[{section}]\n{key} = "none"\n'))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_settings(tmp_path / "none.toml")


def test_flags_override_the_file() -> None:
    base = Settings(model="a.onnx", rule="mse")
    made = override_settings(base, {"model": None, "rule": "minmax", "evaluate.max_drop": 1.0, "quantize.repairs": ()})
    assert (made.model, made.rule, made.evaluate.max_drop, made.quantize.repairs) == ("a.onnx", "minmax", 1.0, ())
    with pytest.raises(UsageError, match=r"bench\.seconds"):
        override_settings(base, {"bench.seconds": 0.0})
    names = {"bench.batches": "--batch"}
    with pytest.raises(UsageError, match=r"\n  → quantkit run --help") as caught:
        override_settings(base, {"bench.batches": (1, 0)}, names)
    assert caught.value.problem.startswith("--batch is 0: input should be ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[bench]\nseconds = nan", "bench.seconds is nan"),
        ("[evaluate]\nmax_drop = inf", "evaluate.max_drop is inf"),
        ("[calibrate]\nlimit = true", "calibrate.limit is True"),
        ("[calibrate]\nlimit = '5'", "calibrate.limit is '5'"),
        ("[calibrate]\nseed = " + "9" * 5000, "more than 64 bits"),
        ("[calibrate]\nlimit = 2020-01-01", "calibrate.limit is a date"),
        ("model = '" + "a" * 9999 + "'\nmodel = 5", "not TOML"),
        ("model = " + "[" * 9999, "deep"),
        ("a\0b = 5", "line 1 is not text"),
    ],
)
def test_hostile_options_are_one_short_line(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(written(tmp_path, text))
    assert problem in caught.value.problem
    assert len(caught.value.problem) < 500


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_any_name_survives_the_template(model: str, data: str) -> None:
    """Control characters, quotes and backslashes are escaped as TOML does it."""
    document = SETTINGS.parse(settings_template(model, data), "x")
    assert (document.model, document.data) == (model, data)
    assert not CONTROL.search(settings_template(model, data).replace("\n", ""))


def test_a_name_that_is_no_text_has_no_template() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        settings_template("m\udce4.onnx", "imgs")


def test_keywords_of_run_are_settings(tmp_path: Path) -> None:
    base = Settings(model="a.onnx", evaluate=EvaluateSettings(max_drop=1.0))
    made = settings_with(base, {"data": tmp_path, "rule": "minmax", "evaluate": {"limit": 3}})
    assert (made.model, made.data, made.rule) == ("a.onnx", str(tmp_path), "minmax")
    assert (made.evaluate.max_drop, made.evaluate.limit) == (1.0, 3)
    assert settings_with(base, {"evaluate": EvaluateSettings(limit=3)}).evaluate == made.evaluate
    with pytest.raises(TypeError, match=r"run\(\) got an unexpected keyword argument 'modle'; did you mean 'model'"):
        settings_with(None, {"modle": "a.onnx"})
    with pytest.raises(UsageError, match=r"evaluate\.limits is not a known key; did you mean limit"):
        settings_with(base, {"evaluate": {"limits": 3}})
    for wrong in ({"evaluate": 3}, {"rule": 3}, {"bench": {"batches": (0,)}}):
        with pytest.raises(UsageError):
            settings_with(base, wrong)


def test_completions_show_the_keywords_of_run() -> None:
    shown = inspect.signature(quantkit.run).parameters
    assert set(Settings.model_fields) <= shown.keys()
    assert set(RunFields.__annotations__) == set(Settings.model_fields)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({}, ("fp8", ("stem/*",))),
        ({"type": "fp8"}, ("fp8", ("stem/*",))),
        ({"type": "int8"}, ("int8", ())),
        ({"int8": ("head/*",)}, ("fp8", ("head/*",))),
    ],
)
def test_a_type_goes_over_the_nodes_that_the_file_gives_it(flags: dict[str, Any], wanted: Any, tmp_path: Path) -> None:
    """They would contradict it, and no flag takes them away."""
    path = written(tmp_path, 'model = "m.onnx"\n[quantize]\ntype = "fp8"\nint8 = ["stem/*"]\n')
    own: dict[str, Any] = defaultdict(lambda: None, flags)
    types = run_settings(None, path, DataChoice(None, None), own).quantize.types
    assert (types.type.value, types.int8) == wanted
