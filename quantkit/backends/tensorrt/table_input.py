"""The two ways of a calibration table into an engine: a calibrator without data, and Q/DQ pairs with its scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantkit.backends.tensorrt.build_context import BuildContext
from quantkit.backends.tensorrt.network import NetworkTensor, network_tensors
from quantkit.backends.tensorrt.table_coverage import (
    CompletedTable,
    complete_table,
    describe_inner,
    refuse_low_coverage,
    table_rule,
)
from quantkit.backends.tensorrt.versions import calibrator_base
from quantkit.errors import TableError
from quantkit.graph import watched_tensors
from quantkit.graph.node_selection import select_nodes
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.placement import Choices
from quantkit.table import Algorithm, CalibrationTable, Header, table_bytes
from quantkit.table.table import zero_scale_note
from quantkit.tensorrt_version import installed_number, number_text


def cover_network(build: BuildContext, table: CalibrationTable, rule: str | None, network: Any) -> CompletedTable:
    """Return the table completed for this network and this TensorRT. TableError."""
    number = installed_number()
    header = table.header
    if header.algorithm is not Algorithm.LEGACY and number is not None and header.version != number:
        if not build.options.retarget:
            raise TableError(
                f"the table is for TensorRT {header.version_text}, this is {number_text(number)} and would ignore it",
                remedy="--retarget uses its scales anyway (they do not depend on the version)",
            )
        build.notes.append(f"the table was made for TensorRT {header.version_text}; its scales are used (--retarget)")
        table = table.with_header(replace(header, version=number))
    observed = frozenset(watched_tensors(build.model).tensors)
    covered = complete_table(table, network_tensors(build.trt, network), table_rule(table, rule), observed)
    refuse_low_coverage(covered, build.options.min_coverage, "the table")
    if covered.zero:
        build.notes.append(zero_scale_note(covered.zero))
    build.notes += describe_inner(covered.inner)
    return covered


def table_calibrator(trt: Any, table: CalibrationTable) -> Any:
    """Return a calibrator with a table and no data; `calls` counts how often TensorRT asked for data anyway."""
    base: Any = calibrator_base(trt, table.header.algorithm)
    content = table_bytes(table)
    header: Header = table.header

    class TableCalibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.calls = 0

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any, *_: Any) -> None:
            del names
            self.calls += 1

        def read_calibration_cache(self, *_: Any) -> bytes:
            return content

        def write_calibration_cache(self, cache: Any, *_: Any) -> None:
            del cache

        def get_quantile(self) -> float:
            return header.quantile

        def get_regression_cutoff(self) -> float:
            return header.cutoff

        def read_histogram_cache(self, *_: Any) -> None:
            return None

        def write_histogram_cache(self, *_: Any) -> None:
            return None

    return TableCalibrator()


def insert_table_as_qdq(build: BuildContext, table: CalibrationTable, rule: str | None) -> None:
    """Insert Q/DQ pairs with the table's scales, since a strongly typed network takes no table. TableError."""
    names = watched_tensors(build.model).tensors
    build.covered = complete_table(table, [NetworkTensor(name) for name in names], table_rule(table, rule))
    refuse_low_coverage(build.covered, build.options.min_coverage, "the table")
    build.kept = select_nodes(build.options.exclude, build.model, "--exclude")
    quantized = insert_qdq(build.model, table.scales, Choices(exclude=build.kept))
    build.model = replace(build.model, proto=quantized.proto)
    why = "has no calibrators" if build.features.always_strong else "builds with strong types"
    build.notes.append(
        f"TensorRT {build.features.version} {why}: {len(quantized.pairs)} activations got Q/DQ pairs from the table"
    )
    build.notes += [
        f"{node} stays float: {reason}"
        for node, reason in quantized.left.items()
        if reason.cause is not FloatCause.EXCLUDED
    ]
