"""Repairs of a network for INT8 that need no training; each returns a changed copy and reports what it did.

One file holds one repair; `quantkit.repairs.registry` lists them in the order in which they are done.
"""

from quantkit.repairs.bias import correct_biases
from quantkit.repairs.code_search import find_codes
from quantkit.repairs.equalization import equalize_channels
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.grams import GramAccumulator
from quantkit.repairs.rounding import round_weights
from quantkit.repairs.smoothing import smooth_channels
from quantkit.repairs.weighted_layers import PatchGeometry

__all__ = [
    "ChannelFigures",
    "GramAccumulator",
    "PatchGeometry",
    "correct_biases",
    "equalize_channels",
    "find_codes",
    "round_weights",
    "smooth_channels",
]
