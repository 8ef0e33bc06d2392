"""Arrays in files as the samples of an input: along its batch axis, or all of it for an input without one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.data.array_files import ArrayRows, HeldRows
from quantkit.errors import DataError
from quantkit.values import ModelInput


class CommonRows(HeldRows):
    """An array that belongs to every sample as a whole: each row of it is all of it."""

    def row(self, index: int) -> NDArray[Any]:  # noqa: ARG002 (every sample has the same)
        """Return the whole array."""
        return self.array


def rows_along_batch(rows: ArrayRows, wanted: ModelInput, alone: bool, where: str) -> ArrayRows:
    """Return the rows of an array as samples of an input: along its batch axis, or all of it for an input without one.

    alone: samples are fed one by one, so that an input without a batch axis may have a row for each. DataError.
    """
    axis = wanted.batch_axis if wanted.shape else None
    rank = len(rows.shape)
    if axis == 0 or (axis is None and alone and rank == len(wanted.shape) + 1):
        return rows
    if axis is not None and rank > axis:
        whole = np.moveaxis(rows.whole(), axis, 0)
        rows.close()
        return HeldRows(whole)
    if axis is not None or rank != len(wanted.shape):
        remedy = "save the array with as many dimensions"
        if axis is None:
            remedy = (
                f"{wanted.name!r} has no batch axis and belongs to every batch: save one array of this shape; if it "
                "changes, save a folder of .npz batches"
            )
        raise DataError(
            f"{where}: {wanted.name!r} is {rows.dtype} {list(rows.shape)}, but the model takes {wanted.describe()}",
            remedy=remedy,
        )
    common = CommonRows(rows.whole())
    rows.close()
    return common
