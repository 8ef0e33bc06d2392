"""The choice of one factor for all scales in INT8, after the rule and the repairs were chosen.

A larger range clips less and has coarser steps. What suits a network depends on how much its outputs mind a clipped
value, which no histogram tells: SqueezeNet, a DenseNet and a U-Net gain by 5 or 10 % more, most networks lose.

One number is chosen by a few hundred of the samples that scales and repairs were fitted to. These are biased against
another factor, not for it: the scales were chosen by their values. So a gain need not be clear; a clear loss on the
samples that nothing was fitted to rules it out. Scales of single tensors are not chosen: see
docs/decisions/0027-scales-by-their-effect.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quantkit.data.opening import whole_batches
from quantkit.graph import Model
from quantkit.progress import Phases
from quantkit.qdq.placement import Choices
from quantkit.quantization.choice_record import ScaleFactor
from quantkit.quantization.held_out import HeldOutMeter, HeldOutParts, gain_over
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.repair_run import RepairedNetwork
from quantkit.quantization.rule_choice import CLEAR, Way, quantized_by_rule, repairs_made
from quantkit.rules import Rule
from quantkit.values import QuantizedType

FACTORS = (1.0, 1.05, 1.1)
"""Each is tried if the one before gained. Below 1 all of six networks lost, at 1.2 seven of nine."""
SAMPLES = 192
"""Fitted samples that a factor is chosen by: more choose no better, and by 128 one of fifteen networks lost 0.3 dB."""


def choose_factor(
    network: Model,
    made: RepairedNetwork,
    rule: Rule,
    parts: HeldOutParts,
    choices: Choices,
    held: HeldOutMeter[Way],
    phase: Phases,
) -> ScaleFactor | None:
    """Return the factor that was tried and whether it is kept; None where samples are too few or nothing is INT8.

    made: the network after its repairs. held: the meter of the samples held out, which has measured it by `rule`.
    ModelError, DataError.
    """
    if parts.fitted < SAMPLES or QuantizedType.INT8 not in choices.types:
        return None
    fitted: HeldOutMeter[float] = HeldOutMeter(network, some_samples(network, parts.fitting), frugal=True)
    trial = partial(quantized_by_rule, made, rule, choices)
    fitted.measure({factor: partial(trial, factor) for factor in FACTORS[:2]}, phase)
    best = FACTORS[1]
    gain = gain_over(fitted.found[best], fitted.found[1.0], fitted.outputs)
    if gain.db <= 0.0:
        return ScaleFactor(best, fitted.samples, gain, None, kept=False)
    for factor in FACTORS[2:]:
        fitted.measure({factor: partial(trial, factor)}, phase)
        if gain_over(fitted.found[factor], fitted.found[best], fitted.outputs).db <= 0.0:
            break
        best = factor
    gain = gain_over(fitted.found[best], fitted.found[1.0], fitted.outputs)
    without, wider = (rule.name, repairs_made(made)), (f"{rule.name} × {best:g}", repairs_made(made))
    held.measure({wider: partial(trial, best)}, phase)
    unseen, loss = (
        gain_over(held.found[one], held.found[other], held.outputs)
        for one, other in ((wider, without), (without, wider))
    )
    return ScaleFactor(best, fitted.samples, gain, unseen, kept=not loss.clear(CLEAR))


def some_samples(network: Model, data: NetworkSamples) -> NetworkSamples:
    """Return the samples that a factor is chosen by."""
    limit = whole_batches(min(data.options.limit or SAMPLES, SAMPLES), network.inputs)
    return replace(data, options=replace(data.options, limit=limit))
