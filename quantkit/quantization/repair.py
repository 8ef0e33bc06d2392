"""Repairs before Q/DQ goes in: which are done, from what, and what each of them changed.

bias                      from statistics alone
equalize, smooth, round   run the data again: the first two change activations, so that statistics are collected anew
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.options import CalibrateOptions
from quantkit.data import DataOptions, open_data
from quantkit.data.opening import whole_batches
from quantkit.data.preprocess_choice import choose_spec
from quantkit.errors import UsageError
from quantkit.graph import Model, write_model
from quantkit.numerics import LEVELS
from quantkit.preprocess import Preprocess
from quantkit.qdq.insert import Plan, planned
from quantkit.qdq.placement import Choices
from quantkit.repairs import ChannelFigures, corrected, equalized, smoothed, with_rounded_weights
from quantkit.statistics import Statistics
from quantkit.values import Batch

REPAIRS = ("equalize", "smooth", "round", "bias")
"""In the order in which they are done."""
SCALING = ("equalize", "smooth")
"""They scale channels, and need statistics anew."""
FROM_STATISTICS = ("bias",)
ROUNDING_SAMPLES = 256
"""Samples that adaptive rounding looks at; more changed no network's error by 0.1 dB."""


@dataclass(frozen=True, slots=True)
class Data:
    """Data that a network can be run on. source: as `calibrate` takes it."""

    source: Any
    preprocess: str | Path | Preprocess | None = None
    options: DataOptions = field(default_factory=DataOptions)

    unreadable: set[str] = field(default_factory=set, compare=False)
    """Samples that were left out because the user asked for it, with the reason: filled while data are read."""

    def of(self, model: Model) -> Data:
        """The same with the spec settled, which may lie beside the model."""
        return replace(self, preprocess=choose_spec(self.preprocess, model, self.source).spec)


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did. text: in words; gains: of what was changed, in dB; skipped: what was left, and why."""

    text: str
    gains: Mapping[str, float]
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Repaired:
    """A network after its repairs, statistics that belong to it, and what was done, by repair.

    collected_again: whether the statistics are not those that were given any more.
    """

    network: Model
    statistics: Statistics
    done: Mapping[str, Repair]
    collected_again: bool


def parse_repairs(text: str) -> tuple[str, ...]:
    """`equalize,round` or `none` → names in the order in which they are done. UsageError."""
    names = [] if text == "none" else [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in REPAIRS]
    if unknown:
        raise UsageError(f"unknown repair {', '.join(map(repr, unknown))}", remedy=f"none, or of {', '.join(REPAIRS)}")
    return tuple(name for name in REPAIRS if name in names)


def settled(asked: Sequence[str] | None, *, statistics: bool, data: bool) -> tuple[str, ...]:
    """The repairs that are done. By default all that what is there allows. UsageError where one lacks its source."""
    possible = REPAIRS if data else FROM_STATISTICS if statistics else ()
    if asked is None:
        return possible
    chosen = parse_repairs(",".join(asked) or "none")
    for name in chosen:
        if name not in possible:
            needs = "statistics or data" if name in FROM_STATISTICS else "the data"
            raise UsageError(f"the repair {name!r} needs {needs}", remedy="give --data, or leave the repair out")
    return chosen


def statistics_of(network: Model, data: Data) -> Statistics:
    """Collect statistics of a network that is not on disk."""
    with TemporaryDirectory(prefix="quantkit-") as folder:
        path = Path(folder) / network.path.name
        write_model(network.proto, network.folder, path)
        options = CalibrateOptions(data=data.options, backend="onnxruntime")
        made = calibrate(path, data.source, rules="minmax", preprocess=data.preprocess, options=options)
    data.unreadable.update(made.skipped)
    assert made.statistics is not None, "bug in quantkit: onnxruntime gives statistics"
    return made.statistics


def repaired(
    network: Model,
    statistics: Statistics,
    names: Collection[str],
    data: Data | None,
    choices: Choices,
    phase: Callable[[str], None] = lambda _: None,
) -> Repaired:
    """Do the repairs `names`. What stays float by `choices` is left alone."""
    done: dict[str, Repair] = {}
    plan = planned(network, {name: h.amax / LEVELS for name, h in statistics.histograms.items()}, choices)
    again, before = False, network
    for name in (n for n in REPAIRS if n in names):
        phase(name)
        if name in SCALING:
            assert data is not None
            known = {tensor: f for tensor, f in figures(statistics).items() if tensor in plan.tensors}
            scaled = (equalized if name == "equalize" else smoothed)(network, known, adaptive="round" in names)
            done[name] = told("groups of channels scaled", scaled.gains, "predicted", scaled.skipped)
            if scaled.factors:
                again = True
                network = replace(network, proto=scaled.proto)
                phase("collecting statistics again")
                statistics = statistics_of(network, data)
        elif name == "round":
            assert data is not None
            before = network
            rounded = with_rounded_weights(network, observer(network, data), plan.floats)
            network = replace(network, proto=rounded.proto)
            left = quantized_only(rounded.skipped, plan)
            done[name] = told("layers' weights rounded", rounded.gains, "on the samples it saw", left)
        else:
            reference = before if "round" in done else None
            shifted = corrected(network, figures(statistics), reference, plan.floats)
            network = replace(network, proto=shifted.proto)
            left = quantized_only(shifted.skipped, plan)
            done[name] = told("biases corrected", shifted.gains, "predicted", left)
    return Repaired(network, statistics, done, again)


def told(what: str, gains: Mapping[str, float], how: str, skipped: Mapping[str, str]) -> Repair:
    """`22 biases corrected, 0.3 dB in the median (predicted); 2 left: no Add of a constant follows it`."""
    text = f"no {what}"
    if gains:
        text = f"{len(gains)} {what}, {float(np.median(list(gains.values()))):.1f} dB in the median ({how})"
    if skipped:
        most = Counter(skipped.values()).most_common(1)[0][0]
        text += f"; {len(skipped)} left{': ' if len(set(skipped.values())) == 1 else ', mostly: '}{most}"
    return Repair(text, gains, skipped)


def quantized_only(skipped: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """What a repair left, without operators that stay float anyway."""
    return {name: why for name, why in skipped.items() if name not in plan.floats}


def figures(statistics: Statistics) -> dict[str, ChannelFigures]:
    """Tensor → figures per channel, of the inputs of weighted operators."""
    found: dict[str, ChannelFigures] = {}
    for view in statistics.channels:
        if view.tensor in found:  # read along two axes: neither can be scaled
            continue
        amax = np.maximum(np.abs(view.minimum), np.abs(view.maximum)).astype(np.float64)
        found[view.tensor] = ChannelFigures(
            view.axis, amax, view.mean, view.sum_of_squares / max(view.elements, 1), view.elements
        )
    return found


def observer(network: Model, data: Data) -> Callable[[Sequence[str]], Iterator[Batch]]:
    """What hands out a network's tensors batch by batch, from the start each time."""

    def observe(names: Sequence[str]) -> Iterator[Batch]:
        from quantkit.backends.onnxruntime import OnnxRuntimeSession

        limit = whole_batches(min(data.options.limit or ROUNDING_SAMPLES, ROUNDING_SAMPLES), network.inputs)
        spec = data.preprocess
        assert isinstance(spec, Preprocess)
        feed, _ = open_data(data.source, network.inputs, spec, replace(data.options, limit=limit))
        inputs = {i.name for i in network.inputs}
        tensors = [name for name in names if name not in inputs]
        run = OnnxRuntimeSession(network, tensors, threads=data.options.workers).runner()
        for portion in feed.portions():
            yield {**portion.batch, **run(portion.batch)}
        data.unreadable.update(feed.unreadable)

    return observe
