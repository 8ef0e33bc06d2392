"""What quantkit's use of TensorRT rests on, asked of the bindings of four versions."""

from __future__ import annotations

from ctypes.util import find_library
from typing import TYPE_CHECKING

import pytest

from quantkit.tensorrt_version import SONAMES

if TYPE_CHECKING:
    from conftest import Bindings

CALIBRATORS = ("IInt8EntropyCalibrator2", "IInt8EntropyCalibrator", "IInt8MinMaxCalibrator", "IInt8LegacyCalibrator")


def has(bindings: Bindings, name: str) -> bool:
    return bindings.run(f"import tensorrt; print(hasattr(tensorrt, {name!r}))") == "True\n"


def test_they_import_without_a_warning(bindings: Bindings) -> None:
    assert bindings.run("import tensorrt; print(tensorrt.__version__)", strict=True) == f"{bindings.version}\n"


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators_can_be_written_up_to_10(bindings: Bindings, name: str) -> None:
    if bindings.major >= 11:
        assert not has(bindings, name)
        return
    code = f"""
        import tensorrt as trt

        class Calibrator(trt.{name}):
            def __init__(self):
                super().__init__()

            def get_batch_size(self):
                return 3

        calibrator = Calibrator()
        assert isinstance(calibrator, trt.IInt8Calibrator)
        print(calibrator.get_batch_size(), calibrator.get_algorithm().name)
    """
    size, algorithm = bindings.run(code, strict=True).split()
    assert size == "3"
    assert algorithm in {"ENTROPY_CALIBRATION_2", "ENTROPY_CALIBRATION", "MINMAX_CALIBRATION", "LEGACY_CALIBRATION"}


def test_a_calibrator_has_to_call_its_base(bindings: Bindings) -> None:
    if bindings.major >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    code = """
        import tensorrt as trt

        class Calibrator(trt.IInt8EntropyCalibrator2):
            def __init__(self):
                pass

        try:
            Calibrator()
        except TypeError as error:
            print(error)
    """
    assert "must be called when overriding __init__" in bindings.run(code)


def test_the_stubs_build_nothing(bindings: Bindings) -> None:
    code = """
        import tensorrt as trt

        try:
            trt.Builder(trt.Logger())
        except TypeError as error:
            print(error)
    """
    assert "factory function returned nullptr" in bindings.run(code)


def test_progress_monitors_exist_from_10_on(bindings: Bindings) -> None:
    assert has(bindings, "IProgressMonitor") == (bindings.major >= 10)


def test_quantkit_asks_the_library_for_its_version(bindings: Bindings) -> None:
    if f"libnvinfer.so.{bindings.major}" not in SONAMES:
        pytest.skip(f"quantkit does not look for TensorRT {bindings.major}")
    if find_library("nvinfer"):
        pytest.skip("this machine has a TensorRT of its own, which may answer")
    code = "from quantkit.tensorrt_version import installed_number; print(installed_number())"
    assert bindings.run(code) == f"{bindings.number}\n"
