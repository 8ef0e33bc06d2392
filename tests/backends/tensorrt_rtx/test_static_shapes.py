"""Shapes that a network is compiled for."""

from __future__ import annotations

import pytest

from quantkit.backends.tensorrt_rtx.static_shapes import chosen_shapes, static_shapes
from quantkit.errors import UsageError
from quantkit.values import ModelInput

IMAGE = ModelInput("image", "float32", ("N", 3, 32, 32))
FREE = ModelInput("photo", "float32", ("N", 3, "H", "W"))
TEXT = ModelInput("ids", "int64", ("N", "length"))
FIXED = ModelInput("x", "float32", (4, 7))


def test_every_input_has_sizes_and_those_that_were_chosen_are_named() -> None:
    inputs = (IMAGE, FREE, TEXT, FIXED)
    shapes = static_shapes(inputs, batch=2)
    assert shapes == {"image": (2, 3, 32, 32), "photo": (2, 3, 224, 224), "ids": (2, 128), "x": (4, 7)}
    assert chosen_shapes(inputs) == ("photo=1x3x224x224", "ids=1x128")
    assert chosen_shapes(inputs, batch=2) == ("photo=2x3x224x224", "ids=2x128")


def test_sizes_with_one_symbol_are_equal() -> None:
    square, mask = ModelInput("m", "float32", ("N", "N")), ModelInput("mask", "float32", ("N", 1, "length", "length"))
    assert static_shapes((square,)) == {"m": (1, 1)}
    assert static_shapes((mask, TEXT), ["ids=2x50"]) == {"mask": (2, 1, 50, 50), "ids": (2, 50)}
    assert static_shapes((TEXT, mask)) == {"ids": (1, 128), "mask": (1, 1, 128, 128)}


def test_given_shapes_win_and_the_best_of_a_range_is_taken() -> None:
    given = ["photo=1x3x64x64:2x3x96x96:4x3x128x128", "image=8"]
    assert static_shapes((IMAGE, FREE), given) == {"image": (8, 3, 32, 32), "photo": (2, 3, 96, 96)}
    assert chosen_shapes((IMAGE, FREE), given) == ()
    with pytest.raises(UsageError, match="names no input"):
        static_shapes((IMAGE,), ["other=1"])
