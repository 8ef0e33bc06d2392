"""The checks in `inside/`, run with the bindings of every version, and what they touched of TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bindings, Inside

CALIBRATION = "calibrators are deprecated as such; a version 10 without them has no tables"
PRECISION = "on weakly typed networks, the only ones that take a table, precisions are flags"
ALLOWED = {
    "IBuilderConfig.int8_calibrator (write)": CALIBRATION,
    "IBuilderConfig.set_calibration_profile()": CALIBRATION,
    "IBuilderConfig.get_calibration_profile()": "no alternative",
    "BuilderFlag.INT8": PRECISION,
    "BuilderFlag.FP16": PRECISION,
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": PRECISION,
    "ILayer.precision (write)": PRECISION,
    "ILayer.set_output_type()": PRECISION,
    "MemoryPoolType.WORKSPACE": "not deprecated itself: its docstring tells of IAlgorithmSelector, which is",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "8.6 deprecates the networks without it",
}
DEPRECATED = {
    "8.6.1": {"MemoryPoolType.WORKSPACE", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"},
    "10.0.1": set(),
    "10.16.1.11": ALLOWED.keys() - {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"},
    "11.4.0.106": set(),
}
OLD_OR_NEW = {
    "IBuilderConfig.algorithm_selector (write)": {"8.6.1"},
    "BuilderFlag.REJECT_EMPTY_ALGORITHMS": {"8.6.1"},
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": {"8.6.1"},
    "ParserError.node()": {"8.6.1"},
    "ICudaEngine.device_memory_size (read)": {"8.6.1", "10.0.1"},
    "ICudaEngine.device_memory_size_v2 (read)": {"10.16.1.11", "11.4.0.106"},
    "IBuilderConfig.progress_monitor (write)": {"10.0.1", "10.16.1.11", "11.4.0.106"},
    "ParserError.node_name()": {"10.0.1", "10.16.1.11", "11.4.0.106"},
    "IBuilderConfig.int8_calibrator (write)": {"8.6.1", "10.0.1", "10.16.1.11"},
    "IBuilderConfig.get_calibration_profile()": {"8.6.1", "10.0.1", "10.16.1.11"},
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": {"10.0.1", "10.16.1.11"},
}
"""What only some versions are to be asked for."""


def test_quantkit_gets_along_with_it(inside: Inside) -> None:
    assert inside.status == 0, inside.said


def test_nothing_deprecated_is_used_that_has_an_alternative(bindings: Bindings, inside: Inside) -> None:
    assert inside.deprecated == DEPRECATED[bindings.version]


@pytest.mark.parametrize("what", OLD_OR_NEW)
def test_each_version_is_asked_in_its_own_way(bindings: Bindings, inside: Inside, what: str) -> None:
    assert (what in inside.touched) == (bindings.version in OLD_OR_NEW[what])
