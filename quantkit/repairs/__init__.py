"""Repairs of a network for INT8 that need no training; each returns a changed copy and reports what it did.

One file holds one repair; `quantkit.repairs.registry` lists them in the order in which they are done.
"""

from quantkit.repairs.bias import corrected
from quantkit.repairs.equalization import equalized
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.grams import GramAccumulator
from quantkit.repairs.layers import Geometry
from quantkit.repairs.rounding import rounded, with_rounded_weights
from quantkit.repairs.smoothing import smoothed

__all__ = [
    "ChannelFigures",
    "Geometry",
    "GramAccumulator",
    "corrected",
    "equalized",
    "rounded",
    "smoothed",
    "with_rounded_weights",
]
