"""Calibration by TensorRT: quantkit's own calibrators, and the build that ends with the table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checked
import numpy as np
import pytest
import tensorrt as trt
from checked import HAS_CALIBRATORS, NUMBER

import quantkit.calibration.tensorrt as backend
from quantkit.backends.tensorrt.background import AbandonedBuild
from quantkit.backends.tensorrt.device import open_device
from quantkit.backends.tensorrt.messages import logger
from quantkit.calibration.job import prepare_job
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.tensorrt import calibration_build as calibrating
from quantkit.calibration.tensorrt.batch_source import BatchSource
from quantkit.calibration.tensorrt.calibration_build import CalibrationBuild, calibrate_on_tensorrt
from quantkit.data import DataOptions
from quantkit.errors import BackendError, Interrupted, ModelError, UsageError
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.percentile import Percentile
from quantkit.table import Algorithm, read_table
from quantkit.tensorrt_version import number_text

pytestmark = pytest.mark.usefixtures("folder")
with_calibrators = pytest.mark.skipif(not HAS_CALIBRATORS, reason="TensorRT 11 has no calibrators")
without_calibrators = pytest.mark.skipif(HAS_CALIBRATORS, reason="this version has calibrators")
NAMES = ("EntropyCalibrator", "EntropyCalibrator2", "LegacyCalibrator", "MinMaxCalibrator")
RULES = {
    Algorithm.ENTROPY_2: Entropy(),
    Algorithm.ENTROPY: Entropy(),
    Algorithm.MIN_MAX: MinMax(),
    Algorithm.LEGACY: Percentile(99.99),
}


def failing(error: BaseException, after: int) -> Any:
    """A stream of batches of 3 that ends in an error."""

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for batch in np.load("data.npy")[: 3 * after].reshape(after, 3, 2, 4, 4):
            yield {"x": batch}
        raise error

    return batches


def parsed(log: Any, best: int) -> tuple[Any, Any, Any]:
    """What a user of a calibrator makes: builder, network and configuration with INT8."""
    builder = trt.Builder(log)
    network = builder.create_network(0 if checked.MAJOR >= 10 else 1)
    assert trt.OnnxParser(network, log).parse(Path("float.onnx").read_bytes())
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.INT8)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 2, 4, 4), (best, 2, 4, 4), (8, 2, 4, 4))
    config.add_optimization_profile(profile)
    return builder, network, config


def built_by_user(calibrator: Any, best: int = 4, calibration: int | None = None) -> Any:
    """calibration: the batch of a calibration profile, 0 for one without shapes."""
    log = logger(trt)
    with open_device().current():
        builder, network, config = parsed(log, best)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            config.int8_calibrator = calibrator
            if calibration is not None:
                profile = builder.create_optimization_profile()
                if calibration:
                    profile.set_shape("x", *[(calibration, 2, 4, 4)] * 3)
                config.set_calibration_profile(profile)
        return calibrator.build(builder, network, config)


def on_tensorrt(data: Any = "data.npy", algorithm: Algorithm = Algorithm.ENTROPY_2, **how: Any) -> CalibrationBuild:
    batch_size = 4 if data == "data.npy" else None
    network = how.pop("network", "float")
    options = CalibrateOptions(data=DataOptions(batch_size=batch_size), backend="tensorrt", algorithm=algorithm)
    job = prepare_job(f"{network}.onnx", data, RULES[algorithm], None, None, options)
    return calibrate_on_tensorrt(job, None, **how)


# ── calibrators in the user's own build ──


@with_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_a_calibrator_is_tensorrts_own(name: str) -> None:
    calibrator = getattr(backend, name)("float.onnx", "data.npy", batch_size=4)
    base = getattr(trt, f"IInt8{name}")
    assert isinstance(calibrator, base)
    assert calibrator.read_calibration_cache() is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert base.get_batch_size(calibrator) == 4  # C++ asks Python
    with open_device().current():
        calibrator.attach(*parsed(logger(trt), 4))
        assert len(calibrator.get_batch(["x"])) == 1
        assert calibrator.get_batch(["x"])
        assert calibrator.get_batch(["x"])
        assert calibrator.get_batch(["x"]) is None
    calibrator.write_calibration_cache(memoryview(f"{checked.header_of(calibrator)}\nx: 3c010a14\n".encode()))
    assert calibrator.finish().scales == {"x": pytest.approx(0.00787598, rel=1e-4)}


@with_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_written_and_reused(world: checked.World, name: str) -> None:
    kind = getattr(backend, name)
    first = kind("float.onnx", "data.npy", table="made.calib", batch_size=4)
    assert built_by_user(first) is not None
    data = np.load("data.npy")
    samples = np.concatenate([batch["x"] for batch in world.build.batches])
    np.testing.assert_array_equal(samples, np.concatenate([data, data[8:10]]))  # the last batch is filled
    assert first.calls == 4
    assert world.build.calibration_shapes == {"x": (4, 2, 4, 4)}
    assert read_table(Path("made.calib")).header.text == checked.header_of(first)
    content = Path("made.calib").read_bytes()
    second = kind("float.onnx", "data.npy", table="made.calib", batch_size=4)
    assert built_by_user(second) is not None
    assert second.calls == 0
    assert world.build.batches == []
    assert Path("made.calib").read_bytes() == content


@with_calibrators
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_error_comes_out_of_the_users_build(kind: type[BaseException], after: int) -> None:
    error = kind("bad sample")
    calibrator = backend.EntropyCalibrator2("float.onnx", failing(error, after), table="made.calib")
    with pytest.raises(kind) as caught:
        built_by_user(calibrator, best=3)
    assert caught.value is error
    assert not Path("made.calib").exists()


@with_calibrators
def test_after_a_build_that_was_refused_the_next_one_sees_all_data(world: checked.World) -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", table="made.calib", batch_size=4)
    with pytest.raises(UsageError):
        built_by_user(calibrator, calibration=2)
    assert not Path("made.calib").exists()
    assert built_by_user(calibrator) is not None
    assert len(world.build.batches) == 3
    assert Path("made.calib").exists()


@with_calibrators
@pytest.mark.parametrize("batch_size", [2, 4])
def test_calibration_runs_in_the_shape_of_the_data(world: checked.World, batch_size: int) -> None:
    """The profile's best shape is 4: with batches of 2 TensorRT would read beyond their end."""
    built_by_user(backend.EntropyCalibrator2("float.onnx", "data.npy", batch_size=batch_size))
    assert world.build.calibration_shapes == {"x": (batch_size, 2, 4, 4)}


@with_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_a_build_that_fails_leaves_no_table(name: str) -> None:
    world = checked.reset(fails=("no kernel",))
    calibrator = getattr(backend, name)("float.onnx", "data.npy", table="made.calib", batch_size=4)
    with pytest.raises(BackendError, match="TensorRT built no engine"):
        built_by_user(calibrator)
    assert len(world.build.batches) == 3, "the calibration went well"
    assert not list(Path().glob("made*"))


@with_calibrators
def test_a_calibration_profile_of_the_users_own(world: checked.World) -> None:
    """It is used where the data has its shape; where not, nothing is built."""
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", table="made.calib", batch_size=2)
    assert built_by_user(calibrator, calibration=2) is not None
    assert world.build.calibration_shapes == {"x": (2, 2, 4, 4)}
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", table="other.calib", batch_size=4)
    wanted = r"the calibration runs with x \[2, 2, 4, 4\], the batches are \[4, 2, 4, 4\]"
    with pytest.raises(UsageError, match=wanted) as caught:
        built_by_user(calibrator, calibration=2)
    assert "set_calibration_profile" in caught.value.remedy
    assert len(world.builds) == 1
    assert not Path("other.calib").exists()
    reused = backend.EntropyCalibrator2("float.onnx", "data.npy", table="made.calib", batch_size=2)
    assert built_by_user(reused, calibration=4) is not None, "with a table that is there no data is read"
    assert reused.calls == 0


@with_calibrators
def test_a_calibration_profile_that_lacks_an_input() -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", batch_size=2)
    with pytest.raises(UsageError):
        built_by_user(calibrator, calibration=0)


@with_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_a_calibrator_that_is_not_attached_gives_no_data(world: checked.World, name: str) -> None:
    """The profile's best shape is 4: TensorRT would read beyond batches of 2."""
    calibrator = getattr(backend, name)("float.onnx", "data.npy", table="made.calib", batch_size=2)
    with open_device().current():
        builder, network, config = parsed(logger(trt), 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            config.int8_calibrator = calibrator
        assert builder.build_serialized_network(network, config) is None
    assert world.build.batches == []
    with pytest.raises(UsageError, match="does not know the shape of the calibration") as caught:
        calibrator.finish()
    assert "calibrator.attach(builder, network, config)" in caught.value.remedy
    assert not Path("made.calib").exists()


@with_calibrators
def test_a_calibrator_that_is_attached_serves_a_build_of_the_users_own(world: checked.World) -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", table="made.calib", batch_size=2)
    with calibrator, open_device().current():
        builder, network, config = parsed(logger(trt), 4)
        calibrator.attach(builder, network, config)
        assert builder.build_serialized_network(network, config) is not None
    assert world.build.calibration_shapes == {"x": (2, 2, 4, 4)}
    assert len(world.build.batches) == 5
    assert read_table(Path("made.calib")).scales == calibrator.finish().scales


@with_calibrators
@pytest.mark.parametrize("table", [None, "made.calib"])
def test_a_calibrator_builds_again_with_its_own_table(world: checked.World, table: str | None) -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", table=table, batch_size=4)
    assert built_by_user(calibrator) is not None
    assert (calibrator.calls, len(world.build.batches)) == (4, 3)
    made = calibrator.finish()
    assert built_by_user(calibrator) is not None
    assert (calibrator.calls, world.build.batches) == (0, [])
    assert world.build.table_read is not None
    assert calibrator.finish() == made
    assert Path("made.calib").exists() == (table is not None)


@with_calibrators
@pytest.mark.parametrize("fixed", [3, 4])
def test_a_fixed_shape_of_the_users_network_is_that_of_the_data(world: checked.World, fixed: int) -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy", batch_size=4)
    with open_device().current():
        builder, network, config = parsed(logger(trt), 4)
        network._inputs[0]._shape = (fixed, 2, 4, 4)
        if fixed == 4:
            assert calibrator.build(builder, network, config) is not None
            return
        with pytest.raises(UsageError, match=r"runs with x \[3, 2, 4, 4\], the batches are \[4, 2, 4, 4\]"):
            calibrator.build(builder, network, config)
    assert world.builds == []


@with_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_only_the_legacy_calibrator_has_a_quantile(name: str) -> None:
    kind = getattr(backend, name)
    if name == "LegacyCalibrator":
        assert kind("float.onnx", "data.npy", quantile=0.5).get_quantile() == 0.5
        assert kind("float.onnx", "data.npy").get_quantile() == 0.9999
        return
    with pytest.raises(UsageError, match="only the LegacyCalibrator has a quantile"):
        kind("float.onnx", "data.npy", quantile=0.5)


@with_calibrators
def test_a_source_knows_its_gpu() -> None:
    calibrator = backend.EntropyCalibrator2("float.onnx", "data.npy")
    assert (calibrator.source.device, calibrator.source.gpu()) == (0, open_device(0))
    absent = backend.EntropyCalibrator2("float.onnx", "data.npy", device=3)
    with pytest.raises(BackendError, match="there is no GPU 3"):
        built_by_user(absent)


@without_calibrators
@pytest.mark.parametrize("name", NAMES)
def test_calibrators_are_gone_from_11(name: str) -> None:
    with pytest.raises(BackendError, match="TensorRT 11 removed calibrators") as caught:
        getattr(backend, name)
    assert "--backend onnxruntime" in caught.value.remedy


# ── calibration as a job ──


@with_calibrators
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_job(world: checked.World, algorithm: Algorithm) -> None:
    seen: list[int] = []
    made = on_tensorrt(algorithm=algorithm, advance=seen.append)
    amax = float(np.abs(np.load("data.npy")).max())
    assert set(made.table.scales) == {"x", "c", "b", "b_reshaped", "a", "y"}
    assert made.table.scales["x"] == pytest.approx(amax / 127)
    assert (made.counted.samples, made.counted.batches, made.repeated, made.calls) == (10, 3, 2, 4)
    assert made.counted.backend == f"tensorrt {number_text(NUMBER)} Host GPU"
    assert sum(seen) >= 10
    assert world.build.stopped, "the engine is not wanted"
    assert "TF32" not in world.build.flags
    assert world.build.calibration_shapes == {"x": (4, 2, 4, 4)}
    assert made.device_bytes == 2 * 4 * 2 * 4 * 4 * 4


@with_calibrators
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_error_comes_out_of_a_job(world: checked.World, kind: type[BaseException], after: int) -> None:
    error = kind("bad sample")
    with pytest.raises(kind) as caught:
        on_tensorrt(failing(error, after))
    assert caught.value is error
    assert len(world.builds) <= 1
    assert not any(build.batches and not build.stopped for build in world.builds)


@with_calibrators
def test_a_job_that_is_stopped() -> None:
    with pytest.raises(Interrupted):
        on_tensorrt(stopped=lambda: Interrupted("stopped", remedy="again"))


@with_calibrators
@pytest.mark.parametrize(("error", "closes"), [(AbandonedBuild, 0), (Interrupted, 1), (ValueError, 1)])
def test_what_tensorrt_still_reads_is_not_freed(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], closes: int
) -> None:
    closed: list[BatchSource] = []
    monkeypatch.setattr(BatchSource, "close", lambda streaming: closed.append(streaming))

    def left(*_: Any, asked: Callable[[], bool], **__: Any) -> Any:
        assert not asked()
        raise error("left", remedy="") if issubclass(error, Interrupted) else error("bad")

    monkeypatch.setattr(calibrating, "run_in_background", left)
    with pytest.raises(error):
        on_tensorrt()
    assert len(closed) == closes


@with_calibrators
def test_a_job_whose_user_had_asked_to_stop_is_left_at_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []

    def look(*_: Any, asked: Callable[[], bool], **__: Any) -> Any:
        said.append(asked())
        raise ValueError("seen")

    monkeypatch.setattr(calibrating, "run_in_background", look)
    for stopped in (None, lambda: None, lambda: Interrupted("stopped", remedy="again")):
        with pytest.raises(ValueError, match="seen"):
            on_tensorrt(stopped=stopped)
    assert said == [False, False, True]


@with_calibrators
def test_a_job_of_a_network_that_cannot_be_parsed() -> None:
    with pytest.raises(ModelError, match=r"node '/odd' \(Mystery\)"):
        on_tensorrt(network="odd")


@with_calibrators
def test_a_job_where_tensorrt_does_not_start() -> None:
    checked.reset(starts=False)
    with pytest.raises(BackendError, match="CUDA initialization failure"):
        on_tensorrt()


@without_calibrators
def test_a_job_on_11() -> None:
    with pytest.raises(BackendError, match="TensorRT 11 removed calibrators"):
        on_tensorrt()
