"""doctor: what this machine can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantkit._version import __version__
from quantkit.calibration.backend_choice import refuse_without_calibrators
from quantkit.errors import BackendError
from quantkit.kernel import COMPILED
from quantkit.table import Header
from quantkit.table.table import Algorithm
from quantkit.tensorrt_version import has_driver, installed_number, target_version
from quantkit.view import Block, RichDisplay, ViewTable

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "pillow",
    "safetensors",
    "tensorrt",
    "pycuda",
)


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that quantkit can do here, or why not and what would change that."""

    what: str
    able: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Diagnosis(RichDisplay):
    """The machine, the packages that matter (None: not installed), and what they allow."""

    quantkit: str
    python: str
    platform: str
    cpus: int
    packages: dict[str, str | None]
    abilities: tuple[Ability, ...]

    def _view_(self) -> Sequence[Block]:
        packages = [(name, version or "not installed") for name, version in self.packages.items()]
        rows = [(ability.what, "yes" if ability.able else "no", ability.detail) for ability in self.abilities]
        return (
            f"quantkit {self.quantkit}, Python {self.python}, {self.platform}, {self.cpus} processors",
            ViewTable(("what", "here", "why"), rows, frozenset({0, 1, 2})),
            ViewTable(("package", "version"), packages, frozenset({0, 1})),
        )


def doctor() -> Diagnosis:
    """Look at this machine; changes nothing."""
    packages = {name: package_version(name) for name in PACKAGES}
    return Diagnosis(
        __version__,
        platform.python_version(),
        platform.platform(terse=True),
        os.cpu_count() or 1,
        packages,
        list_abilities(),
    )


def package_version(name: str) -> str | None:
    """Version of a distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def list_abilities() -> tuple[Ability, ...]:
    """What can be done, each with its reason."""
    import onnxruntime

    built = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    cuda = built and has_driver()
    number, target = installed_number(), target_version(None)
    version = Header(Algorithm.ENTROPY_2, target.number).version_text
    return (
        Ability("calibrate on the CPU", True, f"onnxruntime {onnxruntime.__version__}"),
        Ability(
            "compiled kernel",
            COMPILED,
            "installed" if COMPILED else "numpy counts the same, several times slower; reinstall with a C compiler",
        ),
        Ability(
            "calibrate on a GPU (--provider cuda)",
            cuda,
            "onnxruntime-gpu and a driver are there"
            if cuda
            else "no driver"
            if built
            else "pip install onnxruntime-gpu",
        ),
        Ability(
            "GPU driver",
            has_driver(),
            "libcuda is there" if has_driver() else "no libcuda; none is needed",
        ),
        Ability(
            "TensorRT",
            number is not None,
            f"library version {number}" if number else "not installed; none is needed for tables",
        ),
        tensorrt_ability("calibrate on TensorRT", refuse_without_calibrators),
        tensorrt_ability("build and run engines", refuse_without_tensorrt),
        Ability("write calibration tables", True, f"for TensorRT {version} ({target.source})"),
    )


def tensorrt_ability(what: str, refuse: Callable[[], None]) -> Ability:
    """Something that needs TensorRT and a GPU."""
    try:
        refuse()
    except BackendError as error:
        return Ability(what, False, error.problem)
    from quantkit.backends.tensorrt.device import open_device

    gpu = open_device()
    return Ability(what, True, f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}")


def refuse_without_tensorrt() -> None:
    """BackendError where TensorRT, pycuda or a GPU is missing."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import tensorrt

    tensorrt()
    open_device()
