"""Candidate configurations, quantized as `quantize` does it and ranked by a proxy.

The proxy is the noise at the network's outputs on a few calibration samples: it needs no evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from quantkit.data import DataOptions, open_data
from quantkit.data.opening import whole_batches
from quantkit.graph import Model
from quantkit.graph.node_selection import node_names
from quantkit.output_noise import NoiseCandidate, NoiseMeter, OutputNoise
from quantkit.preprocess import Preprocess
from quantkit.progress import as_phases
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.partial import PartialQuantization, QuantizedLayer
from quantkit.qdq.shared_scales import MOVING_READERS
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import MeasuredNoise
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.quantize import quantize
from quantkit.quantization.result import Quantization
from quantkit.repairs.registry import from_statistics_alone, needs_data, without_rounding
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rules import Rule
from quantkit.sensitivity.layer_ranking import partial_candidate, rank_layers, ranking_candidates
from quantkit.sensitivity.result import LayerError
from quantkit.statistics import Statistics
from quantkit.tuning.memoized_rule import memoized_rule
from quantkit.tuning.trial import RankingBasis, Recipe
from quantkit.tuning.type_mix import LayerTypes, gain_on_the_other_half, leaders_of_adds, measure_layer_types
from quantkit.values import QuantizedType

PROXY_SAMPLES = 64
"""Calibration samples used for the proxy: enough to order the rules and the worst layers reliably."""


@dataclass(frozen=True, slots=True)
class TuningSource:
    """A network and everything it is quantized from.

    data: the calibration data. options: the quantization options that all recipes share. trial_data, trial_options: the
    samples that types are compared on, which the statistics have not seen where calibration data were given; None: the
    calibration data.
    """

    model: Model
    statistics: Statistics
    data: Any
    preprocess: Preprocess
    data_options: DataOptions
    options: QuantizeOptions
    trial_data: Any = None
    trial_options: DataOptions = field(default_factory=DataOptions)


class CandidateFactory:
    """Quantizes networks according to recipes and keeps the most recent ones in memory."""

    def __init__(self, source: TuningSource, phase: Any = lambda _: None) -> None:
        self.source, self._phase = source, phase
        self._meter = self._open_meter(source.data, source.data_options)
        self._quantized: dict[tuple[Recipe, WeightForm | None, bool], Quantization] = {}
        self._names = node_names(replace(source.model, proto=fold_batch_norms(source.model).proto))
        self._rules: dict[str, Rule] = {}
        self._weights_by_layer: dict[str, int] | None = None
        self.proxies: dict[Recipe, float] = {}

    def _open_meter(self, data: Any, options: DataOptions) -> NoiseMeter:
        """Return a meter on a few samples, spread evenly. DataError, ModelError."""
        source = self.source
        limited = replace(options, limit=whole_batches(PROXY_SAMPLES, source.model.inputs), whole=False)
        return NoiseMeter(source.model, open_data(data, source.model.inputs, source.preprocess, limited)[0])

    @cached_property
    def _type_meter(self) -> NoiseMeter:
        """The meter on the samples that types are compared on."""
        source = self.source
        return self._meter if source.trial_data is None else self._open_meter(source.trial_data, source.trial_options)

    @property
    def samples(self) -> int:
        """Number of samples that the proxy is measured on."""
        return self._meter.samples

    def quantization(self, recipe: Recipe, form: WeightForm | None = None, *, half: bool = False) -> Quantization:
        """Return the quantized network, exactly as `quantize` makes it from the same statistics and data.

        half: the rest of it in FP16, for TensorRT 11.
        """
        if (recipe, form, half) not in self._quantized:
            source = self.source
            options = replace(
                source.options,
                policy=recipe.policy or source.options.policy,
                fp16=half,
                rule=self._rule(recipe.rule),
                repairs=recipe.repairs,
                exclude=(*source.options.exclude, *recipe.kept),
                fp8=recipe.fp8,
                weights=form or source.options.weights,
                data=source.data_options,
            )
            runs = needs_data(recipe.repairs)
            given = {"data": source.data, "preprocess": source.preprocess} if runs else {}
            self._phase(f"quantizing {recipe.text()}")
            while len(self._quantized) >= 4:
                self._quantized.pop(next(iter(self._quantized)))
            self._quantized[recipe, form, half] = quantize(
                source.model, statistics=source.statistics, options=options, phase=self._phase, **given
            )
        return self._quantized[recipe, form, half]

    def model(self, recipe: Recipe, form: WeightForm | None = None) -> Model:
        """Return the quantized network as a model in memory."""
        return replace(self.source.model, proto=self.quantization(recipe, form).proto, sha256="")

    def measure(self, recipes: Sequence[Recipe]) -> Mapping[Recipe, float]:
        """Return recipe → SQNR of the outputs in dB, measuring those that are new."""
        new = [recipe for recipe in recipes if recipe not in self.proxies]
        for recipe in new:  # one at a time, because each holds a whole network in memory
            model = self.model(recipe)
            self._phase(f"measuring the noise of {recipe.text()}")
            self.proxies[recipe] = self._noise_of(model, self._meter).db
        return {recipe: self.proxies[recipe] for recipe in recipes}

    def _rule(self, name: str) -> Rule:
        """Return the same rule object for every recipe that names it."""
        if name not in self._rules:
            self._rules[name] = memoized_rule(name)
        return self._rules[name]

    def _noise_of(self, model: Model, meter: NoiseMeter) -> OutputNoise:
        """Return the noise of the outputs."""
        return meter.noise({"": NoiseCandidate(lambda: model)})[""]

    def mix_gains(self, mixes: Sequence[Recipe], other: Recipe) -> dict[Recipe, Gain]:
        """Return what mixes gain over another recipe, on samples that no layer's type was chosen by. ModelError."""
        found = {}
        for recipe in (other, *mixes):
            model = self.model(recipe)
            self._phase(f"measuring the noise of {recipe.text()}")
            found[recipe] = MeasuredNoise(self._noise_of(model, self._type_meter).energies)
        return {mix: gain_on_the_other_half(found[mix], found[other]) for mix in mixes}

    def layer_types(self, recipe: Recipe) -> tuple[LayerTypes, ...]:
        """Return every layer that has kernels of both types, in INT8 and in FP8. ModelError.

        Those repairs of the recipe are done that both types know and that need no data: the others change the network.
        """
        repairs = from_statistics_alone(recipe.repairs)
        made = self.quantization(replace(recipe, repairs=repairs, fp8=()), WeightForm.FLOAT)
        options = replace(self.source.options, type=QuantizedType.FP8, rule=self._rule(recipe.rule), repairs=repairs)
        options = replace(options, exclude=(*options.exclude, *recipe.kept), weights=WeightForm.FLOAT)
        self._phase("quantizing to FP8")
        in_fp8 = quantize(self.source.model, statistics=self.source.statistics, options=options)
        networks = {QuantizedType.INT8: made.proto, QuantizedType.FP8: in_fp8.proto}
        models = {kind: replace(self.source.model, proto=proto, sha256="") for kind, proto in networks.items()}
        phases = as_phases(self._phase)
        phases("layers in INT8 and in FP8")
        plain = replace(self.source.model, proto=fold_batch_norms(self.source.model).proto)
        return measure_layer_types(
            self._type_meter, plain, models, leaders_of_adds(plain.proto, made.types), phases.count
        )

    def layers(self, recipe: Recipe) -> tuple[QuantizedLayer, ...]:
        """Return the layers that a recipe quantizes; repairs do not affect which these are. What only moves values is
        none: it reads behind the pair of a layer, and stays float with it."""
        found = PartialQuantization(self.model(replace(recipe, repairs=()))).layers
        return tuple(layer for layer in found if layer.operator not in MOVING_READERS)

    def weights_in_float(self, recipe: Recipe) -> float:
        """Return the fraction of the weights that stay float because their layers are kept or excluded."""
        excluded = self.source.options.exclude
        if not recipe.kept and not excluded:
            return 0.0
        if self._weights_by_layer is None:
            options = replace(self.source.options, exclude=())
            plain = quantize(self.source.model, statistics=self.source.statistics, options=replace(options, repairs=()))
            variants = PartialQuantization(replace(self.source.model, proto=plain.proto, sha256=""))
            self._weights_by_layer = {layer.node: layer.parameters for layer in variants.layers}
        every = self._weights_by_layer
        still = {layer.node for layer in self.layers(recipe)}
        total = sum(every.values())
        return sum(count for node, count in every.items() if node not in still) / total if total else 0.0

    def ranking(self, recipe: Recipe, most: int) -> tuple[tuple[LayerError, ...], str, RankingBasis]:
        """The layers that can be named, worst first; by what: by their noise alone or by what leaving them out gains,
        whichever leaves less noise when the first `most` of them are float; and on what: before weights are rounded."""
        before_rounding = replace(recipe, repairs=without_rounding(recipe.repairs))
        variants = PartialQuantization(self.model(before_rounding, WeightForm.FLOAT))
        phases, measured = as_phases(self._phase), ranking_candidates(variants)
        phases(f"{len(measured)} variants of the network")
        found = rank_layers(self._meter.noise(measured, phases.count), variants, {}, {})
        named = [layer for layer in found.layers if layer.node in self._names and layer.operator not in MOVING_READERS]
        by_gain = sorted(named, key=lambda layer: -layer.gain_db if math.isfinite(layer.gain_db) else -math.inf)
        orders = {"noise alone": named, "gain when left out": by_gain}
        every = [layer.node for layer in variants.layers]
        candidates = {
            name: partial_candidate(variants, [n for n in every if n not in {layer.node for layer in order[:most]}])
            for name, order in orders.items()
        }
        noise = self._meter.noise(candidates)
        best = min(orders, key=lambda name: noise[name].outputs)
        return tuple(orders[best]), best, RankingBasis(before_rounding, found.all_db, self.samples)
