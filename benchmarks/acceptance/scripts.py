"""What a user's own builder script looks like, with a calibrator of quantkit's in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt as trt


class Quiet(trt.ILogger):
    """Keeps errors and warnings."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.said: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.said.append(msg)


LOGGER = Quiet()
_kept: list[Any] = []


def builder() -> Any:
    """One builder for the process: loading its kernels takes seconds."""
    if not _kept:
        _kept.append(trt.Builder(LOGGER))
    return _kept[0]


def build(model: Path, calibrator: Any, shape: tuple[int, ...] | None = None) -> Any:
    """An INT8 engine with a calibrator, at the lowest optimization level. `shape`: of a dynamic input."""
    network = builder().create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, LOGGER)
    assert parser.parse_from_file(str(model)), parser.get_error(0)
    config = builder().create_builder_config()
    config.builder_optimization_level = 0
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.INT8)
    if shape is not None:
        profile = builder().create_optimization_profile()
        profile.set_shape(network.get_input(0).name, shape, shape, shape)
        config.add_optimization_profile(profile)
        config.set_calibration_profile(profile)
    config.int8_calibrator = calibrator
    if hasattr(calibrator, "build"):
        return calibrator.build(builder(), network, config)
    return builder().build_serialized_network(network, config)
