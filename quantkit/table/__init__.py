"""TensorRT's calibration table: tensor name → scale, in TensorRT's own text format."""

from quantkit.table.codec import parse_table, read_table, table_bytes, write_table
from quantkit.table.comparison import Coverage, TableDifference, coverage, diff
from quantkit.table.table import CalibrationTable, Header
from quantkit.values import Algorithm

__all__ = [
    "Algorithm",
    "CalibrationTable",
    "Coverage",
    "Header",
    "TableDifference",
    "coverage",
    "diff",
    "parse_table",
    "read_table",
    "table_bytes",
    "write_table",
]
