"""A table that is not the one that its record describes is refused by every verb that uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import quantkit
from quantkit.calibration.recorded_table import read_recorded_table, read_unchanged_table
from quantkit.engines.build import BuildOptions
from quantkit.engines.table_scales import find_table_scales
from quantkit.errors import StaleError, TableError
from quantkit.graph import load_model
from tests.support.networks import Command

MODEL, TABLE = "net/model.onnx", "x.calib"


@pytest.fixture(name="table")
def calibrated(place: Path) -> Path:
    """A table with its record."""
    quantkit.calibrate(MODEL, "imgs", rules="minmax", output=TABLE)
    return place / TABLE


def flip_bit(path: Path) -> None:
    """Flip one bit of the last scale: another digit."""
    content = bytearray(path.read_bytes())
    content[-2] = ord("9") if content[-2] == ord("8") else ord("8")
    path.write_bytes(content)


def test_table_and_record_are_read_together(table: Path) -> None:
    found = read_unchanged_table(table)
    assert found.table == quantkit.read_table(table)
    assert found.record is not None
    assert found.record.table.sha256 == found.sha256
    flip_bit(table)
    assert read_recorded_table(table).changed
    Path(f"{TABLE}.json").unlink()
    assert not read_recorded_table(table).changed
    table.unlink()
    with pytest.raises(TableError, match=r"x\.calib"):
        read_recorded_table(table)


def build() -> None:
    find_table_scales(load_model(MODEL), BuildOptions(), TABLE)


USES: dict[str, Callable[[], object]] = {
    "calibrate": lambda: quantkit.calibrate(MODEL, "imgs", rules="minmax", output=TABLE),
    "quantize": lambda: quantkit.quantize(MODEL, table=TABLE),
    "evaluate": lambda: quantkit.evaluate([MODEL, f"{MODEL}+{TABLE}"], "imgs"),
    "layers": lambda: quantkit.layers(MODEL, table=TABLE, data="imgs"),
    "convert": lambda: quantkit.convert(TABLE, "y.calib", tensorrt_version="8.6.1"),
    "build": build,
}


@pytest.mark.parametrize("use", USES)
def test_a_changed_table_is_refused(use: str, table: Path) -> None:
    flip_bit(table)
    with pytest.raises(StaleError, match="was changed after quantkit wrote it"):
        USES[use]()


def test_the_remedy_for_a_table_that_is_trusted_works(table: Path) -> None:
    flip_bit(table)
    with pytest.raises(StaleError, match="table adopt --force"):
        quantkit.quantize(MODEL, table=TABLE)
    quantkit.adopt(TABLE, MODEL, force=True)
    assert quantkit.quantize(MODEL, table=TABLE).pairs


def test_show_says_that_the_origin_is_that_of_another_table(table: Path, quantkit_command: Command) -> None:
    note = "changed after its record was written"
    shown = quantkit_command("table", "show", TABLE)
    assert note not in shown.stdout + shown.stderr
    flip_bit(table)
    shown = quantkit_command("table", "show", TABLE)
    assert note in shown.stdout + shown.stderr
