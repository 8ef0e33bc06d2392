"""Two runs of one network: the framework's outputs, and onnxruntime's of the ONNX model that was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantkit.errors import ModelError, first_line
from quantkit.frameworks.exported import Exported, draw_inputs
from quantkit.graph import Model
from quantkit.values import Array

BATCHES = (1, 3)
"""Sizes that are tried where the batch is dynamic; exporters saw 2."""
SEED = 0
FIXED = "--fixed-batch N exports the network for one batch size; or let it compute sizes from x.shape[0]"
REMEDY = "another --opset or exporter may do it; --tolerance accepts larger differences"


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output on random inputs. largest: |difference|; magnitude: largest |value| of the framework's output."""

    output: str
    batch: int
    largest: float
    magnitude: float

    @property
    def share(self) -> float:
        """The difference as a share of the magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest


def check_outputs(model: Model, found: Exported, tolerance: float) -> tuple[OutputDifference, ...]:
    """Every output in every batch size; nothing where the framework's own run is not to be had.

    ModelError names the output that differs by more than `tolerance` of its magnitude, or the batch size in which one
    of the two does not run.
    """
    if found.run is None:
        return ()
    session = open_onnx_session(model)
    fixed = next((i.fixed_batch for i in model.inputs if i.fixed_batch is not None), None)
    generator = np.random.default_rng(SEED)
    results: list[OutputDifference] = []
    for batch in BATCHES if fixed is None else (fixed,):
        inputs = draw_inputs(found, batch, generator)
        expected = framework_outputs(found, inputs, batch)
        results += compare_outputs(model.outputs, expected, onnx_outputs(session, inputs, batch, found), batch)
    worst = max(results, key=lambda r: (not np.isfinite(r.share), r.share))
    if not worst.share <= max(tolerance, found.rounding):
        raise ModelError(
            f"output {worst.output} of the ONNX model differs from {found.source}'s by {worst.largest:.3g} at batch "
            f"{worst.batch} (its largest value is {worst.magnitude:.3g})",
            remedy=REMEDY,
        )
    return tuple(results)


def open_onnx_session(model: Model) -> Any:
    """An onnxruntime session of the model, outputs as they are. ModelError."""
    from quantkit.backends.onnxruntime import open_session, with_outputs

    return open_session(with_outputs(model, ()), model, "cpu", 0)


def framework_outputs(found: Exported, inputs: Any, batch: int) -> Sequence[Array]:
    """The framework's outputs. ModelError where it does not run in this batch size."""
    assert found.run is not None
    try:
        return found.run(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"the network itself does not run at batch {batch}: {first_line(error)}",
            remedy="--fixed-batch N exports it for the one batch size that it is made for",
        ) from error


def onnx_outputs(session: Any, inputs: Any, batch: int, found: Exported) -> Sequence[Array]:
    """onnxruntime's outputs. ModelError where the graph does not run in this batch size."""
    from quantkit.backends.onnxruntime import from_onnxruntime

    try:
        outputs: Sequence[Array] = session.run(None, dict(inputs))
    except Exception as error:
        if not from_onnxruntime(error):
            raise
        raise ModelError(
            f"the ONNX model that {found.exporter} made does not run at batch {batch}: {first_line(error)}",
            remedy=FIXED,
        ) from None
    return outputs


def compare_outputs(
    names: Sequence[str], expected: Sequence[Array], found: Sequence[Array], batch: int
) -> Iterator[OutputDifference]:
    """The outputs side by side. ModelError where their number or a shape differs."""
    if len(expected) != len(found):
        raise ModelError(f"the ONNX model has {len(found)} outputs, the network {len(expected)}", remedy=REMEDY)
    for name, want, have in zip(names, expected, found, strict=True):
        if want.shape != have.shape:
            raise ModelError(
                f"output {name} has shape {list(have.shape)} at batch {batch}, the network's has {list(want.shape)}",
                remedy=FIXED,
            )
        magnitude = float(np.max(np.abs(want.astype(np.float64)), initial=0.0, where=np.isfinite(want)))
        yield OutputDifference(name, batch, largest_difference(want, have), magnitude)


def largest_difference(want: Array, have: Array) -> float:
    """Largest |difference|; infinite where only one of the two is NaN or infinite."""
    a, b = want.astype(np.float64), have.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gaps = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))
