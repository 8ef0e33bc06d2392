"""Repairs of a network for INT8 that need no training; each returns a changed copy and says what it did.

    equalized              channels of activations get the same range; weights make up for it      float function kept
    smoothed               the same behind LayerNormalization and a Mul by constants (SmoothQuant) float function kept
    with_rounded_weights   weights on their grid, rounded so that a layer's output changes least
    corrected              biases lose the mean shift that rounded weights cause

In this order: the first two change activations, so that the network has to be calibrated again after them.
"""

from quantkit.repairs.bias import Corrected, corrected
from quantkit.repairs.equalization import Equalized, equalized
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.grams import GramAccumulator
from quantkit.repairs.layers import Geometry
from quantkit.repairs.rounding import Rounded, rounded, with_rounded_weights
from quantkit.repairs.smoothing import Smoothed, smoothed

__all__ = [
    "ChannelFigures",
    "Corrected",
    "Equalized",
    "Geometry",
    "GramAccumulator",
    "Rounded",
    "Smoothed",
    "corrected",
    "equalized",
    "rounded",
    "smoothed",
    "with_rounded_weights",
]
