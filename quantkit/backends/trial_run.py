"""The trial of a network before it is written: it is loaded, run once, and compared with the network it was made from.

    input        real: samples that the caller has; made up: noise in the ranges that are known, of sizes that fit
    outcome      the SQNR of the worst float output, or why the network was not tried
    ModelError   it does not load, does not run, or gives NaN where the other one does not

Made-up input shows that a network runs and computes about the same; it says nothing about its accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.backends.session import open_session
from quantkit.errors import BackendError, ModelError
from quantkit.graph.messages import all_tensors
from quantkit.graph.model import Model
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.save import ONE_FILE
from quantkit.graph.subgraphs import all_nodes
from quantkit.graph.weight_store import return_freed_memory
from quantkit.numerics import LEVELS, format_db, noise_decibels, noise_share
from quantkit.values import Batch, ModelInput

if TYPE_CHECKING:
    from quantkit.values import Array

SIZES = (32, 224, 64, 8, 1)
"""Sizes that are tried for dynamic dimensions behind the first."""
LEAST_DB = 3.0
"""An SQNR below this is remarked on: half of the output's energy is noise."""
SEED = 0
DEVIATIONS = 8.0
"""The width of a range in standard deviations: made-up input is normal, as most data are, and rarely meets the ends."""
KNOWN_DOMAINS = ONNX_DOMAINS | {"ai.onnx.ml", "com.microsoft"}
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of a trial.

    made_up: the input was no data. sqnr_db: of the worst float output against the other network, by name in `output`;
    NaN if they have no float output of one shape. untried: why the network was not run; empty if it was.
    """

    made_up: bool = False
    sqnr_db: float = nan
    output: str = ""
    untried: str = ""

    @property
    def text(self) -> str:
        """The outcome in words."""
        if self.untried:
            return f"not run: {self.untried}"
        text = f"loads and runs on {'made-up input' if self.made_up else 'one batch of the data'}"
        if not self.output:
            return text
        if self.made_up and self.sqnr_db != inf:  # a figure here would be taken for the accuracy
            return f"{text}, which says nothing about its accuracy"
        return f"{text}: SQNR {format_db(self.sqnr_db)} at output {self.output}"

    @property
    def document(self) -> dict[str, Any]:
        """The outcome for programs."""
        return {**asdict(self), "text": self.text}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks about an outcome that is not as it should be."""
        if self.untried:
            return (f"the written network was not run: {self.untried}",)
        if self.output and self.sqnr_db < LEAST_DB:
            where = f"SQNR {format_db(self.sqnr_db)} at output {self.output}"
            on = "made-up input; evaluate it on data" if self.made_up else "one batch of the data"
            return (f"the written network is far from the one that it was made from: {where} on {on}",)
        return ()


def try_network(
    target: Path, made: Model, reference: Model, feeds: Batch | None = None, ranges: Ranges | None = None
) -> Trial:
    """Run `made`, which is to be written to `target`, and `reference` once, and compare their outputs.

    feeds: one batch of data; without it the input is made up, from `ranges` (input → least and largest value).
    ModelError if only `made` does not load or run, or gives NaN or Inf where the reference does not.
    """
    for model in (reference, made):
        if sum(len(tensor.raw_data) for tensor in all_tensors(model.proto)) > ONE_FILE:
            return Trial(untried="it has more than 2 GB of weights, which onnxruntime loads from files alone")
    try:
        feeds_used, exact = run_reference(reference, [feeds] if feeds else made_up_batches(reference.inputs, ranges))
    except (ModelError, BackendError) as error:
        why = cause_of(error, reference)
        return Trial(untried=f"onnxruntime does not run the network that it was made from ({why})")
    try:
        return_freed_memory()
        outputs = run_once(made, feeds_used)
    except ModelError as error:
        raise ModelError(
            f"{target.name}: the network that would be written does not run: {cause_of(error, made)}",
            remedy="keep it as it was; onnxruntime runs that one",
        ) from None
    return_freed_memory()
    return compare_outputs_of(target, exact, outputs, made_up=not feeds)


def try_alone(made: Model) -> Trial:
    """Run a network once on made-up input. ModelError if it does not run although onnxruntime has its operators."""
    try:
        run_reference(made, made_up_batches(made.inputs))
    except (ModelError, BackendError) as error:
        foreign = {node.domain for node in all_nodes(made.proto.graph)} - KNOWN_DOMAINS
        if foreign:
            return Trial(untried=f"onnxruntime does not know the operators of {', '.join(sorted(foreign))}")
        raise ModelError(
            f"{made.path}: onnxruntime does not run the network: {cause_of(error, made)}",
            remedy="export it in another way",
        ) from None
    return Trial(made_up=True)


def run_reference(reference: Model, tries: Iterator[Batch] | Sequence[Batch]) -> tuple[Batch, Mapping[str, Array]]:
    """Return the first input that the network runs on, and its outputs. ModelError of the first, if there is none."""
    failure: ModelError | None = None
    session = open_session(reference, reference.outputs, threads=0, any_type=True, once=True)
    for feeds in tries:
        try:
            outputs = session.runner()(feeds)
            return feeds, {name: value.copy() for name, value in outputs.items() if isinstance(value, np.ndarray)}
        except ModelError as error:
            failure = failure or error
    raise failure or ModelError("no input can be made up for it", remedy="give samples with --data")


def run_once(model: Model, feeds: Batch) -> Mapping[str, Array]:
    """Return the outputs of a network, whose inputs may have another precision than `feeds`. ModelError."""
    run = open_session(model, model.outputs, threads=0, any_type=True, once=True).runner()
    return run({i.name: feeds[i.name].astype(i.dtype, copy=False) for i in model.inputs})


def made_up_batches(inputs: Sequence[ModelInput], ranges: Ranges | None = None) -> Iterator[Batch]:
    """Yield inputs that might fit: normal noise in the known ranges, [0, 1] where none is known; zeros for integers.

    Dynamic first dimensions have size 1, others one of `SIZES`.
    """
    known = ranges or {}
    dynamic = any(not isinstance(size, int) for i in inputs for size in i.shape[1:])
    for size in SIZES if dynamic else SIZES[:1]:
        generator = np.random.default_rng(SEED)
        feeds: dict[str, Array] = {}
        for i in inputs:
            shape = tuple(d if isinstance(d, int) else 1 if k == 0 else size for k, d in enumerate(i.shape))
            if i.dtype.startswith("float"):
                low, high = known.get(i.name, (0.0, 1.0))
                values = generator.normal((low + high) / 2, (high - low) / DEVIATIONS, shape)
                feeds[i.name] = np.clip(values, low, high).astype(i.dtype)
            elif i.dtype in np.sctypeDict:
                feeds[i.name] = np.zeros(shape, i.dtype)
            else:
                return
        yield feeds


def scale_ranges(scales: Mapping[str, float]) -> Ranges:
    """Return the ranges of tensors that their scales stand for."""
    return {name: (-LEVELS * scale, LEVELS * scale) for name, scale in scales.items()}


def compare_outputs_of(
    target: Path, exact: Mapping[str, Array], outputs: Mapping[str, Array], *, made_up: bool
) -> Trial:
    """Return the worst SQNR of the float outputs. ModelError if one gives NaN or Inf where the reference does not."""
    worst, where = inf, ""
    for name, expected in exact.items():
        found = outputs.get(name)
        if found is None or expected.dtype.kind != "f" or found.shape != expected.shape or not expected.size:
            continue
        finite = np.isfinite(expected)
        wrong = finite & ~np.isfinite(found)
        if wrong.any():
            raise ModelError(
                f"{target.name}: the network that would be written gives NaN or Inf at output {name!r}, where the one "
                "that it was made from does not",
                remedy="quantkit layers shows which layers to keep float",
            )
        if not finite.any():
            continue
        wide = np.where(finite, expected, 0).astype(np.float64)
        noise = float(np.square(wide - np.where(finite, found, 0)).sum())
        db = noise_decibels(noise_share(noise, float(np.square(wide).sum())))
        if db < worst or not where:
            worst, where = db, name
    return Trial(made_up, worst if where else nan, where)


def cause_of(error: ModelError | BackendError, model: Model) -> str:
    """Return what onnxruntime says, without the path, which is not that of the file to be written."""
    return error.problem.removeprefix(f"onnxruntime cannot load {model.path}: ")
