"""The comparison of a framework's outputs with onnxruntime's outputs of the converted model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantkit.backends.session import Runner, SessionOpener, open_session
from quantkit.errors import ModelError, first_line
from quantkit.frameworks.exported import Exported, draw_inputs
from quantkit.graph import Model
from quantkit.values import Array

BATCHES = (1, 3)
"""Batch sizes to compare if the batch is dynamic; exporters saw 2."""
SEED = 0
FIXED = "export it for one batch size with --fixed-batch N, or let it compute sizes from x.shape[0]"
REMEDY = "try another --opset or exporter; --tolerance accepts larger differences"


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """A frozen value: one output on random inputs.

    largest: largest |difference|; magnitude: largest |value| of the framework's output.
    """

    output: str
    batch: int
    largest: float
    magnitude: float

    @property
    def share(self) -> float:
        """Return the difference as a fraction of the magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest


def check_outputs(
    model: Model, found: Exported, tolerance: float, open_session: SessionOpener = open_session
) -> tuple[OutputDifference, ...]:
    """Compare every output in every batch size; return nothing if the framework cannot run the model here.

    ModelError names the output that differs by more than `tolerance` of its magnitude, or the batch size in which one
    of the two models does not run.
    """
    if found.run is None:
        return ()
    run = open_session(model, model.outputs, threads=0, any_type=True).runner()
    fixed = next((i.fixed_batch for i in model.inputs if i.fixed_batch is not None), None)
    generator = np.random.default_rng(SEED)
    results: list[OutputDifference] = []
    for batch in BATCHES if fixed is None else (fixed,):
        inputs = draw_inputs(found, batch, generator)
        expected = framework_outputs(found, inputs, batch)
        results += compare_outputs(model.outputs, expected, onnx_outputs(run, inputs, batch, found), batch)
    worst = max(results, key=lambda r: (not np.isfinite(r.share), r.share))
    if not worst.share <= max(tolerance, found.rounding):
        raise ModelError(
            f"output {worst.output} of the ONNX model differs from {found.source}'s by {worst.largest:.3g} at batch "
            f"{worst.batch} (its largest value is {worst.magnitude:.3g})",
            remedy=REMEDY,
        )
    return tuple(results)


def framework_outputs(found: Exported, inputs: Any, batch: int) -> Sequence[Array]:
    """Return the framework's outputs. ModelError if the model does not run with this batch size."""
    assert found.run is not None
    try:
        return found.run(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"the original model does not run at batch {batch}: {first_line(error)}",
            remedy="export it for its one batch size with --fixed-batch N",
        ) from error


def onnx_outputs(run: Runner, inputs: Any, batch: int, found: Exported) -> Sequence[Array]:
    """Return the outputs of the ONNX model. ModelError where the graph does not run in this batch size."""
    try:
        return tuple(run(inputs).values())
    except ModelError as error:
        raise ModelError(
            f"the ONNX model from {found.exporter} does not run at batch {batch}: "
            f"{first_line(error.__cause__ or error)}",
            remedy=FIXED,
        ) from None


def compare_outputs(
    names: Sequence[str], expected: Sequence[Array], found: Sequence[Array], batch: int
) -> Iterator[OutputDifference]:
    """Yield the difference of each output. ModelError if their number or a shape differs."""
    if len(expected) != len(found):
        raise ModelError(f"the ONNX model has {len(found)} outputs, the original model {len(expected)}", remedy=REMEDY)
    for name, want, have in zip(names, expected, found, strict=True):
        if want.shape != have.shape:
            raise ModelError(
                f"output {name} has shape {list(have.shape)} at batch {batch}, originally {list(want.shape)}",
                remedy=FIXED,
            )
        magnitude = float(np.max(np.abs(want.astype(np.float64)), initial=0.0, where=np.isfinite(want)))
        yield OutputDifference(name, batch, largest_difference(want, have), magnitude)


def largest_difference(want: Array, have: Array) -> float:
    """Return the largest |difference|; infinite if a value of only one of the two is NaN or infinite."""
    a, b = want.astype(np.float64), have.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gaps = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))
