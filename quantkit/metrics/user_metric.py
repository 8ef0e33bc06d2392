"""User-defined metrics, `module:callable`, in three forms:

    a function (outputs, labels) → scores [N]     one score per sample; the metric is their mean
    a class, or a function without arguments      creates an object with update(outputs, labels) and compute() → number
    an object with update and compute             such as a torchmetrics metric; each model gets a copy

`outputs` is the array of the network's only output, or of the one that `module:callable@NAME` names; if there are
several and none is named, it is a mapping name → array. `labels` is an array if all labels have one shape, else a list.
Both are copies, which a metric may change. One based on torch (torchmetrics, torcheval) gets tensors.

Attributes `share` (scores are shares 0 … 1: differences in percentage points; default: from torchmetrics' plot bounds,
else False) and `higher_is_better` (default True) are read from the callable or the object.

An interval needs the scores of single samples, which a function returns. An object has none, because its value need not
be a mean over samples. If it has `resample(indices) → number`, that is used. If all states of a torchmetrics metric are
sums (`dist_reduce_fx="sum"`: by torchmetrics' contract the state of two parts is then the sum of the parts' states),
the states of every sample are kept, up to STATE_BYTES, and any selection of samples is the sum of theirs. Otherwise
only the value is known.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError, QuantkitError, UsageError
from quantkit.metrics.metric import MetricFactory, MetricResult
from quantkit.metrics.torchmetrics_state import SampleStates, is_torch_metric
from quantkit.plugin import USER_ERRORS, call_factory, describe_error, load_plugin, running_user_code, user_frames
from quantkit.values import Array

LARGEST = 1e100
"""Largest magnitude of a score: sums and squares of differences stay finite."""
GIVEN = "check its arguments: outputs (an array, or a mapping of several outputs) and labels of one batch"
ONE_NUMBER = "compute takes no arguments and returns one number over everything that update received"


def load_user_metric(text: str, output: str | None, choices: str) -> MetricFactory:
    """Return a factory for `module:callable`. choices: lists all metrics. UsageError if it has none of the forms."""
    found = load_plugin(
        text,
        option="--metric",
        remedies=(
            f"{choices} with the module in this directory or installed",
            "name a function (outputs, labels) → scores, or a class with update and compute",
        ),
        fits=lambda value: callable(value) or is_metric_object(value),
    )
    name = text.partition(":")[2]
    if is_metric_object(found):
        return lambda: ObjectMetric(name, copied_metric(found, text), output)
    if is_scoring_function(found):
        return lambda: FunctionMetric(name, found, output)
    make_metric_object(found, text)  # an error now, rather than after the data
    return lambda: ObjectMetric(name, make_metric_object(found, text), output)


def copied_metric(metric: Any, text: str) -> Any:
    """Return a copy of a metric, because each model has its own. UsageError."""
    try:
        with running_user_code():
            return copy.deepcopy(metric)
    except USER_ERRORS as error:
        raise UsageError(
            f"--metric {text} cannot be copied, for a metric of each model: {describe_error(error)}",
            details=user_frames(error),
            remedy="name its class, or a function without arguments that returns it",
        ) from error


def is_metric_object(value: Any) -> bool:
    """Return True for an object (not a class) with update and compute."""
    return not isinstance(value, type) and all(callable(getattr(value, a, None)) for a in ("update", "compute"))


def is_scoring_function(function: Callable[..., Any]) -> bool:
    """Return True for a function of (outputs, labels) that is not a class or a partial of one."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if isinstance(inner, type):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def make_metric_object(factory: Callable[..., Any], text: str) -> Any:
    """Return the object that a class or a function without arguments creates. UsageError."""
    made = call_factory(factory, "--metric", text, "name a function without arguments that returns the metric")
    if not is_metric_object(made):
        raise UsageError(
            f"--metric {text} returns a value of type {type(made).__name__} without update and compute",
            remedy="name a function (outputs, labels) → scores, or a class with update and compute",
        )
    return made


class FunctionMetric:
    """The mean of the scores that a function returns for each sample."""

    def __init__(self, name: str, function: Callable[..., Any], output: str | None) -> None:
        self.name = name
        self.share = as_flag(getattr(function, "share", False), "share", name)
        self.higher_is_better = is_higher_better(function, name)
        self._function, self._output = function, output
        self._scores: list[NDArray[np.float64]] = []

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Score a batch. DataError names the metric and a sample."""
        found = call_user_code(
            lambda: as_sample_scores(self._function(select_output(outputs, self._output), stack_labels(labels))),
            self.name,
            names,
        )
        if found.shape != (len(names),):
            raise DataError(
                f"metric {self.name} returned {describe_scores(found)} for {len(names)} samples (from {names[0]})",
                remedy="return one score per sample, an array [N]; a value of the whole set needs update and compute",
            )
        if (wrong := np.flatnonzero(~(np.abs(found) <= LARGEST))).size:
            raise DataError(
                f"{names[wrong[0]]}: metric {self.name} returned {found[wrong[0]]}", remedy="return a finite score"
            )
        if self.share and (wrong := np.flatnonzero((found < 0) | (found > 1))).size:
            raise DataError(
                f"{names[wrong[0]]}: metric {self.name} returned {found[wrong[0]]:g}, but declares itself a share",
                remedy="return scores in 0 … 1, or remove its attribute share",
            )
        self._scores.append(found)

    def result(self) -> MetricResult:
        """Return the mean, and every sample's score. DataError if there were no samples."""
        if not sum(map(len, self._scores)):
            raise DataError(f"metric {self.name}: there were no samples", remedy="give data with labels")
        scores = np.concatenate(self._scores)
        return MetricResult(float(scores.mean()), scores, None, scores.size)

    def state(self) -> Mapping[str, Any]:
        """Return the score of each sample."""
        return {"scores": np.concatenate([np.zeros(0), *self._scores])}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the samples that follow."""
        self._scores.append(state["scores"])


def as_sample_scores(returned: Any) -> NDArray[np.float64]:
    """Convert what a function returned to scores. TypeError if it returned None or complex numbers."""
    if returned is None:
        raise TypeError("it returned None")
    if np.iscomplexobj(returned):
        raise TypeError("it returned complex numbers")
    return np.asarray(returned, np.float64)


def describe_scores(scores: NDArray[Any]) -> str:
    """Describe what was returned instead of one score per sample: `1 score`, `one number`, `an array 32×10`."""
    if scores.ndim == 1:
        return f"{scores.size} score{'' if scores.size == 1 else 's'}"
    return f"an array {'×'.join(map(str, scores.shape))}" if scores.ndim else "one number"


class ObjectMetric:
    """A value of the whole set, from an object with update and compute."""

    def __init__(self, name: str, metric: Any, output: str | None) -> None:
        self.name = name
        self.share = is_share(metric, name)
        self.higher_is_better = is_higher_better(metric, name)
        self._metric, self._output = metric, output
        self._torch = is_torch_metric(metric)
        self._states = SampleStates.of(metric) if self._torch else None
        self._first: tuple[str, ...] = ()
        self._samples = 0

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Update with a batch. DataError names the metric and the batch's first sample."""
        self._first = self._first or tuple(names[:1])
        self._samples += len(names)
        call_user_code(
            lambda: self._update(select_output(outputs, self._output), stack_labels(labels)), self.name, names
        )

    def _update(self, outputs: Any, labels: Any) -> None:
        if self._torch:
            outputs, labels = as_tensors(outputs), as_tensors(labels)
        self._metric.update(outputs, labels)
        if self._states is not None and not self._states.add(outputs, labels):
            self._states = None

    def result(self) -> MetricResult:
        """Return the value. DataError if there were no samples, or if it is not one finite number."""
        if not self._first:
            raise DataError(f"metric {self.name}: there were no samples", remedy="give data with labels")
        value: float = call_user_code(lambda: as_one_number(self._metric.compute()), self.name)
        if not abs(value) <= LARGEST:
            raise DataError(f"metric {self.name} is {value}", remedy="compute must return one finite number")
        states, own = self._states, getattr(self._metric, "resample", None)
        resample: Any = states.resample if states is not None else own

        def figure(indices: NDArray[np.intp]) -> float:
            found: float = call_user_code(
                lambda: as_one_number(resample(indices)), f"{self.name}: resample", self._first
            )
            return found

        return MetricResult(value, None, figure if callable(resample) else None, self._samples)


def call_user_code(call: Callable[[], Any], metric: str, names: Sequence[str] = ()) -> Any:
    """Call user code and turn whatever it raises into one DataError. names: of the batch; none for compute."""
    try:
        with running_user_code():
            return call()
    except QuantkitError:
        raise
    except USER_ERRORS as error:
        where, remedy = (f" failed, samples from {names[0]} on", GIVEN) if names else (": compute failed", ONE_NUMBER)
        problem = f"metric {metric}{where}: {describe_error(error)}"
        raise DataError(problem, details=user_frames(error), remedy=remedy) from error


def select_output(outputs: Mapping[str, Array], output: str | None) -> Any:
    """Return a copy of the named output, of the only one, or of all in a mapping."""
    if output is not None:
        return outputs[output].copy()
    if len(outputs) == 1:
        return next(iter(outputs.values())).copy()
    return {name: array.copy() for name, array in outputs.items()}


def stack_labels(labels: Sequence[Any] | Array) -> Any:
    """Return a copy of labels: one array if they are numbers of one shape, else a list."""
    if isinstance(labels, np.ndarray):
        return labels.copy()
    try:
        array = np.array(labels)
    except ValueError:
        return copy.deepcopy(list(labels))
    return array if array.dtype.kind in "biuf" else copy.deepcopy(list(labels))


def as_tensors(value: Any) -> Any:
    """Convert arrays to torch tensors, in mappings and lists item by item; leave anything else as it is."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        whole = np.ascontiguousarray(value)
        return torch.from_numpy(whole if whole.flags.writeable else whole.copy())
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_tensors(item) for item in value]
    return value


def as_one_number(value: Any) -> float:
    """Convert what compute returned to a float. TypeError if it is not one number."""
    if isinstance(value, Mapping):
        raise TypeError(f"compute returned {len(value)} values ({', '.join(map(str, value))}) instead of one")
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, np.float64)
    if array.size != 1:
        raise TypeError(f"compute returned {array.size} values instead of one")
    return float(array.reshape(()))


def as_flag(stated: Any, attribute: str, name: str) -> bool:
    """Return the value of a metric's attribute as True or False. UsageError if it is neither, such as an array."""
    try:
        return bool(stated)
    except USER_ERRORS as error:
        raise UsageError(
            f"metric {name}: its attribute {attribute} is neither true nor false: {describe_error(error)}",
            remedy=f"set {attribute} to True or False",
        ) from error


def is_share(metric: Any, name: str) -> bool:
    """Return True if the value is a share, by the metric's attribute or by torchmetrics' plot bounds. UsageError."""
    stated = getattr(metric, "share", None)
    if stated is not None:
        return as_flag(stated, "share", name)
    return (getattr(metric, "plot_lower_bound", None), getattr(metric, "plot_upper_bound", None)) == (0.0, 1.0)


def is_higher_better(metric: Any, name: str) -> bool:
    """Return the metric's attribute, by default True. UsageError if the attribute is None."""
    stated = getattr(metric, "higher_is_better", True)
    if stated is None:
        raise UsageError(
            f"metric {name} does not declare whether higher is better", remedy="set its attribute higher_is_better"
        )
    return as_flag(stated, "higher_is_better", name)
