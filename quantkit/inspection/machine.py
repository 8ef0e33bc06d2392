"""The verb doctor: what quantkit can do on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from quantkit._version import __version__
from quantkit.backends.session import Backend, default_backend, session_backends
from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.calibration.backend_choice import refuse_without_calibrators
from quantkit.errors import BackendError
from quantkit.extras import gpu_command, install_command
from quantkit.kernel import COMPILED
from quantkit.repairs import code_search
from quantkit.table import Algorithm, Header
from quantkit.tensorrt_version import has_driver, installed_number, target_version
from quantkit.view import Block, RichDisplay, ViewTable

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "cupy-cuda13x",
    "pillow",
    "safetensors",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "pycuda",
)


@dataclass(frozen=True, slots=True)
class Ability:
    """A frozen value: something that quantkit can do here, or why it cannot and what would help."""

    what: str
    able: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Diagnosis(RichDisplay):
    """A frozen value: the machine, the relevant packages (None: not installed), and what they allow."""

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
            f"quantkit {self.quantkit}, Python {self.python}, {self.platform}, {self.cpus} CPU cores",
            ViewTable(("ability", "here", "reason"), rows, frozenset({0, 1, 2})),
            ViewTable(("package", "version"), packages, frozenset({0, 1})),
        )


def doctor() -> Diagnosis:
    """Inspect this machine, without changing anything."""
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
    """Return the version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def list_abilities() -> tuple[Ability, ...]:
    """Return what can be done and what cannot, each with its reason."""
    backend = default_backend()
    number, target = installed_number(), target_version(None)
    version = Header(Algorithm.ENTROPY_2, target.number).version_text
    return (
        Ability("calibrate on the CPU", True, f"{backend.name} {backend.version()}"),
        Ability(
            "compiled kernels",
            COMPILED and code_search.COMPILED,
            "installed"
            if COMPILED and code_search.COMPILED
            else "numpy computes the same, several times slower; reinstall with a C compiler",
        ),
        gpu_ability(backend),
        Ability(
            "GPU driver",
            has_driver(),
            "libcuda is installed" if has_driver() else "no libcuda; not required",
        ),
        Ability(
            "TensorRT",
            number is not None,
            f"library version {number}" if number else "not installed; not required for tables",
        ),
        compiler_ability(),
        map_ability(),
        *(session_ability(other) for other in session_backends().values() if other is not backend),
        tensorrt_ability("calibrate on TensorRT", refuse_without_calibrators),
        tensorrt_ability("build and run engines", refuse_without_tensorrt),
        Ability("write calibration tables", True, f"for TensorRT {version} ({target.source})"),
    )


def gpu_ability(backend: Backend) -> Ability:
    """Return the ability to calibrate on a GPU without TensorRT."""
    if "cuda" not in backend.available():
        missing = gpu_command()
    elif find_spec("cupy") is None:
        missing = install_command("ort-cuda", "cupy")
    else:
        missing = "" if has_driver() else "no driver"
    detail = missing or "onnxruntime-gpu, CuPy and a driver are available"
    return Ability("calibrate on a GPU (--provider cuda)", not missing, detail)


def compiler_ability() -> Ability:
    """Return the ability to compile for GPUs that are not here."""
    version = compiler_version()
    detail = install_command("rtx") if version is None else f"TensorRT-RTX {version}: quantkit compile, lint --compile"
    return Ability("compile without a GPU", version is not None, detail)


def map_ability() -> Ability:
    """Return the ability to draw maps."""
    installed = find_spec("fast_sugiyama") is not None
    return Ability("draw maps", installed, "quantkit map" if installed else f"{install_command('map')} (Python 3.11)")


def session_ability(backend: Backend) -> Ability:
    """Return the ability to calibrate with another backend than the default one."""
    able = bool(backend.available())
    return Ability(f"calibrate with --backend {backend.name}", able, backend.version() if able else "not installed")


def tensorrt_ability(what: str, refuse: Callable[[], None]) -> Ability:
    """Return an ability that needs TensorRT and a GPU. refuse: raises BackendError if it is not available."""
    try:
        refuse()
    except BackendError as error:
        return Ability(what, False, error.summary)
    from quantkit.backends.tensorrt.device import open_device

    gpu = open_device()
    return Ability(what, True, f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}")


def refuse_without_tensorrt() -> None:
    """Raise BackendError if TensorRT, pycuda or a GPU is missing."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import tensorrt

    tensorrt()
    open_device()
