"""Bad input gets one clear line with a remedy and an exit code, and nothing half-written stays behind."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.networks import Command, network

CASES: dict[str, tuple[Callable[[Path], object], list[str], str, int]] = {
    "no such model": (lambda p: (p / "net/model.onnx").unlink(), [], "No such file", 1),
    "not a model": (lambda p: (p / "net/model.onnx").write_text("hello"), [], "not an ONNX model", 1),
    "an empty model": (lambda p: (p / "net/model.onnx").write_bytes(b""), [], "not an ONNX model", 1),
    "a truncated model": (
        lambda p: (p / "net/model.onnx").write_bytes((p / "net/model.onnx").read_bytes()[:60_000]), [], "truncated", 1,
    ),
    "no images": (lambda p: [f.unlink() for f in p.glob("imgs/*/*")], [], "no images in imgs", 1),
    "no folder": (lambda p: (p / "imgs").rename(p / "other"), [], "imgs does not exist", 1),
    "a spec that does not fit": (lambda _: None, ["--preprocess", "imagenet"], "1 channels", 1),
    "an unknown preset": (lambda _: None, ["--preprocess", "imgnet"], "unknown preset 'imgnet'", 1),
    "a bad spec": (lambda p: (p / "net/preprocess.toml").write_text("scale = 'x'"), [], "scale", 1),
    "an unknown rule": (lambda _: None, ["--rule", "kl"], "unknown rule 'kl'", 2),
    "a rule twice": (lambda _: None, ["--rule", "mse,mse"], "named twice", 2),
    "a bad percentile": (lambda _: None, ["--rule", "percentile:101"], "not in (0, 100]", 2),
    "an unknown algorithm": (lambda _: None, ["--algorithm", "Entropy3"], "unknown algorithm", 2),
    "a contradiction": (lambda _: None, ["--algorithm", "LegacyCalibration"], "holds a percentile", 2),
    "an unknown histogram": (lambda _: None, ["--histogram", "fine"], "unknown histogram", 2),
    "an unknown backend": (lambda _: None, ["--backend", "cuda"], "unknown backend", 2),
    "an unknown provider": (lambda _: None, ["--provider", "rocm"], "unknown provider", 2),
    "TensorRT as backend": (
        lambda _: None, ["--backend", "tensorrt", "--rule", "entropy"], "--backend onnxruntime", 1,
    ),
    "a rule that TensorRT lacks": (lambda _: None, ["--backend", "tensorrt"], "--rule entropy", 2),
    "TensorRT 11": (lambda _: None, ["--tensorrt-version", "11.0.0"], "version 11 removed them", 2),
    "no version": (lambda _: None, ["--tensorrt-version", "new"], "not a TensorRT version", 2),
    "no images asked for": (lambda _: None, ["--limit", "0"], "limit is 0", 2),
    "a memory that is none": (lambda _: None, ["--max-memory", "much"], "'much' is not a size", 2),
    "too little memory": (lambda _: None, ["--max-memory", "1K"], "--max-memory", 2),
    "no folder for the output": (lambda _: None, ["--output", "nowhere/x.calib"], "nowhere", 1),
    "nothing to resume": (lambda _: None, ["--resume"], "nothing to resume", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_a_remedy_and_nothing_left(case: str, place: Path, quantkit_command: Command) -> None:
    break_it, options, expected, code = CASES[case]
    break_it(place)
    before = sorted(p for p in place.rglob("*"))
    done = quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", *options, code=code)
    assert expected in done.stderr
    assert done.stderr.startswith("quantkit: ")
    assert "\n  → " in done.stderr
    assert done.stdout == ""
    assert sorted(p for p in place.rglob("*")) == before


def test_all_corrupt_images_are_named(place: Path, quantkit_command: Command) -> None:
    truncated, text = sorted(place.glob("imgs/*/*"))[7], place / "imgs/9/zz.png"
    truncated.write_bytes(truncated.read_bytes()[:100])
    text.write_text("hello")
    done = quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", code=1)
    assert "2 of 61 samples cannot be read" in done.stderr
    assert truncated.name in done.stderr
    assert "9/zz.png" in done.stderr
    assert "--skip-corrupt" in done.stderr
    done = quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "--skip-corrupt")
    assert "59 images in 2 batches, 2 unreadable left out" in done.stdout


def test_nan_pixels_name_the_sample(place: Path, quantkit_command: Command) -> None:
    values = np.zeros((5, 1, 16, 16), np.float32)
    values[3, 0, 2, 2] = np.nan
    np.save(place / "x.npy", values)
    done = quantkit_command("calibrate", "net/model.onnx", "--data", "x.npy", code=1)
    assert "x.npy[3]" in done.stderr
    assert "NaN" in done.stderr
    assert not list(place.glob("net/*calib*"))


def test_nan_in_an_activation_that_int8_needs_names_tensor_and_sample(place: Path, quantkit_command: Command) -> None:
    nodes = [helper.make_node("Log", ["x"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["z"], "layer")]
    logarithm = network(nodes, {"x": ["N", 3]}, ["z"])
    logarithm.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "w"))
    onnx.save(logarithm, "log.onnx")
    (place / "batches").mkdir()
    for i, value in enumerate([1.0, 2.0, -1.0]):
        np.savez(place / "batches" / f"{i}.npz", x=np.full((2, 3), value, np.float32))
    done = quantkit_command("calibrate", "log.onnx", "--data", "batches", code=1)
    assert "tensor 'y' holds NaN or Inf in 2.npz[" in done.stderr
    assert "INT8 of layer needs its scale" in done.stderr
    assert not list(place.glob("log.*calib*"))


def small(place: Path) -> onnx.ModelProto:
    """A network with weights; its data are in x.npy."""
    np.save(place / "x.npy", np.ones((4, 3), np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["y"], name="last")]
    return network(nodes, {"x": ["N", 3]}, ["y"], {"w": np.eye(3, dtype=np.float32)})


def test_a_network_with_qdq_is_not_calibrated(place: Path, quantkit_command: Command) -> None:
    onnx.save(small(place), "net.onnx")
    quantkit_command("quantize", "net.onnx", "--data", "x.npy", "-o", "q.onnx", "-q")
    done = quantkit_command("calibrate", "q.onnx", "--data", "x.npy", code=1)
    assert "q.onnx already has Q/DQ" in done.stderr
    assert "quantkit table from-qdq" in done.stderr
    assert not list(place.glob("q.*calib*"))


def test_quantize_names_a_bad_model_before_missing_statistics(place: Path, quantkit_command: Command) -> None:
    onnx.save(small(place), "net.onnx")
    quantkit_command("quantize", "net.onnx", "--data", "x.npy", "-o", "q.onnx", "-q")
    assert "q.onnx already has Q/DQ" in quantkit_command("quantize", "q.onnx", code=1).stderr
    assert "absent.onnx: No such file" in quantkit_command("quantize", "absent.onnx", code=1).stderr


@pytest.mark.parametrize(("samples", "row"), [(1, ""), (3, " in sample 2")])
def test_nan_in_a_batch_names_the_sample_where_there_are_several(
    samples: int, row: str, place: Path, quantkit_command: Command
) -> None:
    onnx.save(small(place), "net.onnx")
    values = np.ones((samples, 3), np.float32)
    values[-1, 0] = np.nan
    (place / "parts").mkdir()
    np.savez(place / "parts/0.npz", x=values)
    done = quantkit_command("calibrate", "net.onnx", "--data", "parts", code=1)
    assert f"input 'x' holds NaN or Inf{row}\n" in done.stderr


def test_one_batch_is_singular(place: Path, quantkit_command: Command) -> None:
    onnx.save(small(place), "net.onnx")
    done = quantkit_command("calibrate", "net.onnx", "--data", "x.npy")
    assert "4 samples in 1 batch\n" in done.stdout


def test_an_input_without_a_shape_is_refused_and_the_remedy_helps(place: Path, quantkit_command: Command) -> None:
    model = small(place)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, "net.onnx")
    done = quantkit_command("calibrate", "net.onnx", "--data", "x.npy", code=1)
    assert "net.onnx: input 'x' has no shape" in done.stderr
    shape_line = "onnx.helper.make_tensor_type_proto(1, ['N', 3, 224, 224])"
    assert f"model.graph.input[0].type.CopyFrom({shape_line})" in done.stderr.replace("\n", " ")
    model.graph.input[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(1, ["N", 3]))
    onnx.save(model, "net.onnx")
    quantkit_command("calibrate", "net.onnx", "--data", "x.npy", "-q")


def test_node_names_that_come_twice_become_unique(
    place: Path, quantkit_command: Command, quantkit_json: Callable[..., dict[str, list[dict[str, str]]]]
) -> None:
    model = small(place)
    model.graph.node[0].name = "last"
    onnx.save(model, "net.onnx")
    quantkit_command("calibrate", "net.onnx", "--data", "x.npy", "-q")
    names = [node["name"] for node in quantkit_json("inspect", "net.onnx")["nodes"]]
    assert {"last", "last_2"} <= set(names)


def test_the_names_that_exclude_takes_are_where_the_refusal_says(
    place: Path, quantkit_command: Command, quantkit_json: Callable[..., dict[str, list[dict[str, str]]]]
) -> None:
    onnx.save(small(place), "net.onnx")
    done = quantkit_command("quantize", "net.onnx", "--data", "x.npy", "--exclude", "nosuchnode", code=2)
    assert "quantkit inspect MODEL --json" in done.stderr
    nodes = quantkit_json("inspect", "net.onnx")["nodes"]
    assert nodes == [{"name": "c", "operator": "MatMul"}, {"name": "last", "operator": "MatMul"}]
    for node in nodes:
        options = ("--exclude", node["name"], "-o", f"{node['name']}.onnx", "-q")
        quantkit_command("quantize", "net.onnx", "--data", "x.npy", *options)


def test_what_is_folded_is_not_among_the_names(
    place: Path, quantkit_command: Command, quantkit_json: Callable[..., dict[str, list[dict[str, str]]]]
) -> None:
    model = small(place)
    model.graph.node[1].op_type = "Gemm"
    model.graph.node.extend([helper.make_node("BatchNormalization", ["y", *"bbbb"], ["z"], name="norm")])
    model.graph.node.extend(
        [helper.make_node("Transpose", ["w"], ["v"]), helper.make_node("MatMul", ["z", "v"], ["k"])]
    )
    model.graph.output[0].name = "k"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "b"))
    onnx.save(model, "net.onnx")
    names = [node["name"] for node in quantkit_json("inspect", "net.onnx")["nodes"]]
    assert not {"norm", "v"} & set(names)
    excluded = [option for name in names[:-1] for option in ("--exclude", name)]
    quantkit_command("quantize", "net.onnx", "--data", "x.npy", *excluded, "-q")


@pytest.mark.parametrize("limit", [0, 2_000, 20_000])
def test_a_full_disk_leaves_nothing(limit: int, place: Path) -> None:
    """The size of files is limited, as a full disk would do it."""
    done = subprocess.run(
        [sys.executable, "-m", "quantkit", "calibrate", "net/model.onnx", "--data", "imgs", "-o", "x.calib"],
        cwd=place,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write x." in done.stderr
    assert not [p for p in place.iterdir() if "x." in p.name]


def test_an_error_is_json_where_a_program_listens(
    place: Path, quantkit_json: Callable[..., dict[str, dict[str, str]]]
) -> None:
    error = quantkit_json("calibrate", "net/model.onnx", "--data", "nowhere", code=1)["error"]
    assert error["kind"] == "DataError"
    assert error["remedy"]


def test_a_table_of_another_network_is_refused(place: Path, quantkit_command: Command) -> None:
    onnx.save(network([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3]}, ["y"]), "other.onnx")
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "-o", "x.calib", "-q")
    (place / "x.calib.json").unlink()
    done = quantkit_command("table", "adopt", "x.calib", "other.onnx", code=1)
    assert "covers 0% of the tensors" in done.stderr
    assert not (place / "x.calib.json").exists()
    done = quantkit_command("table", "adopt", "x.calib", "net/model.onnx")
    assert "44 tensors of the model, 100.0%" in done.stdout


def test_a_broken_pipe_is_no_error(place: Path, quantkit_command: Command) -> None:
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "-o", "x.calib", "-q")
    done = subprocess.run(
        f"{sys.executable} -m quantkit table show x.calib | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("table show x.calib", ""),
        ("table show x.calib --json", ""),
        ("table --help", ""),
        ("table show none.calib --json", "quantkit: none.calib: No such file"),
    ],
)
def test_what_is_printed_and_finds_no_room_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str, line: str, first: str
) -> None:
    (place / "x.calib").write_text("TRT-8503-EntropyCalibration2\nx: 3c010a14\n")
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "quantkit", *line.split()],
            cwd=place,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    *before, problem, remedy = done.stderr.splitlines()
    assert done.returncode == 1
    assert problem == "quantkit: cannot write to standard output: No space left on device"
    assert remedy.startswith("  → ")
    assert bool(before) == bool(first)
    assert "\n".join(before).startswith(first)


def test_nothing_that_is_read_is_replaced_even_by_force(place: Path, quantkit_command: Command) -> None:
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "-q")
    (place / "labels.csv").write_text("file,label\n")
    (place / "link.csv").symlink_to("labels.csv")
    (place / "spec.toml").write_text("scale = 0.5\n")
    (place / "x.npy").write_bytes(b"")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for line in (
        "evaluate net/model.onnx --data imgs -o net/model.onnx",
        "evaluate net/model.onnx --data imgs --html ./net/../net/model.onnx",
        "evaluate net/model.onnx+net/model.calib --data imgs -o net/model.calib",
        "evaluate net/model.onnx --data imgs --labels labels.csv -o link.csv",
        "layers net/model.onnx --html net/model.onnx",
        "layers net/model.onnx --data imgs -o net/model.stats.safetensors",
        "calibrate net/model.onnx --data imgs -o net/model.onnx",
        "calibrate net/model.onnx --data imgs --preprocess spec.toml -o spec.toml",
        "quantize net/model.onnx --data imgs --preprocess spec.toml -o spec.toml",
        "quantize net/model.onnx --data x.npy -o x.npy",
    ):
        done = quantkit_command(*line.split(), "--force", code=2)
        assert "would replace its own source" in done.stderr
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", "No such file"),
        ("text", "not an ONNX model"),
        ("quantized", "--against net/quantized.onnx"),
    ],
)
def test_layers_looks_at_the_model_before_it_asks_for_statistics(
    name: str, expected: str, place: Path, quantkit_command: Command
) -> None:
    (place / "net" / "text.onnx").write_text("hello")
    quantkit_command(
        "quantize", "net/model.onnx", "--data", "imgs", "--repair", "none", "-o", "net/quantized.onnx", "-q"
    )
    done = quantkit_command("layers", f"net/{name}.onnx", code=1)
    assert expected in done.stderr
    assert "statistics" not in done.stderr


@pytest.mark.parametrize("top", ["0", "-1"])
@pytest.mark.usefixtures("place")
def test_layers_shows_something(top: str, quantkit_command: Command) -> None:
    assert f"--top is {top}" in quantkit_command("layers", "net/model.onnx", "--top", top, code=2).stderr


def test_names_of_files_that_are_no_utf8_are_no_obstacle(place: Path, quantkit_command: Command) -> None:
    image = next(iter(sorted(place.glob("imgs/0/*"))))
    try:
        image.rename(os.fsdecode(os.fsencode(image.parent) + b"/\xe4.png"))
    except OSError:
        pytest.skip("this file system knows no such names")
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs")
    done = quantkit_command("calibrate", "net/model.onnx", "--data", "imgs")
    assert "no images decoded" in done.stdout
    line = ("run", "net/model.onnx", "--data", "imgs", "--repair", "none")
    steps = quantkit_command(*line).stdout.split("\n\n")[0].count("\n") + 1
    assert quantkit_command(*line).stdout.count("reused: inputs and options unchanged") == steps >= 5
    image.parent.joinpath(os.fsdecode(b"\xe4.png")).write_text("hello")
    done = quantkit_command("evaluate", "net/model.onnx", "--data", "imgs", code=1)
    assert "\\udce4.png: cannot identify" in done.stderr


def test_nan_in_a_weight_is_one_line_without_warnings_of_libraries(place: Path, quantkit_command: Command) -> None:
    model = onnx.load(place / "net/model.onnx")
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, place / "net/model.onnx")
    done = quantkit_command("run", "net/model.onnx", "--data", "imgs", code=1)
    assert "holds NaN or Inf" in done.stderr
    assert "RuntimeWarning" not in done.stderr
    assert not (place / "net/model.run").exists()


def test_evaluate_accepts_a_table_that_covers_little_if_min_coverage_allows_it(
    place: Path, quantkit_command: Command
) -> None:
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "-q")
    lines = (place / "net/model.calib").read_text().splitlines(keepends=True)
    (place / "few.calib").write_text("".join(lines[: len(lines) // 2]))
    line = ("evaluate", "net/model.onnx+few.calib", "--data", "imgs", "-q")
    assert "--min-coverage" in quantkit_command(*line, code=1).stderr
    quantkit_command(*line, "--min-coverage", "0.3")


@pytest.mark.parametrize(("count", "warned"), [(10, False), (7, True)])
def test_fewer_names_than_classes_are_reported(
    count: int, warned: bool, place: Path, quantkit_command: Command
) -> None:
    for digit in range(7, 10):
        shutil.rmtree(place / "imgs" / str(digit))
    (place / "names.txt").write_text("".join(f"{i}\n" for i in range(count)))
    done = quantkit_command("evaluate", "net/model.onnx", "--data", "imgs", "--classes", "names.txt")
    assert ("only the first 7 of the network's 10 classes have names" in done.stderr) is warned


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "net/model.onnx"),
        ("layers", "net/model.onnx"),
        ("quantize", "net/model.onnx", "--repair", "round", "-o", "q.onnx"),
        ("tune", "net/model.onnx", "--max-drop", "50", "--rule", "mse", "--repair", "none", "-o", "tuned"),
    ],
    ids=lambda line: line[0],
)
def test_samples_that_are_left_out_are_counted_by_every_command_that_names_the_option(
    place: Path, quantkit_command: Command, line: tuple[str, ...]
) -> None:
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "-q")
    (place / "imgs" / "3" / "cut.png").write_bytes(next((place / "imgs" / "3").glob("*.png")).read_bytes()[:60])
    refused = quantkit_command(*line, "--data", "imgs", code=1)
    assert "3/cut.png" in refused.stderr
    assert "--skip-corrupt" in refused.stderr
    done = quantkit_command(*line, "--data", "imgs", "--skip-corrupt")
    assert done.stderr.count("1 sample cannot be read and was left out") == 1


@pytest.mark.parametrize("holdout", ["0.2", "0.5"])
def test_tune_counts_what_was_left_out_of_both_parts_at_once(
    place: Path, quantkit_command: Command, holdout: str
) -> None:
    for digit in "0369":
        (place / "imgs" / digit / "cut.png").write_bytes(next((place / "imgs" / digit).glob("*.png")).read_bytes()[:60])
    line = ("tune", "net/model.onnx", "--data", "imgs", "--max-drop", "50", "--rule", "mse", "--repair", "none")
    done = quantkit_command(*line, "--skip-corrupt", "--holdout", holdout, "--quiet")
    assert done.stderr == "warning: 4 samples cannot be read and were left out\n"
