"""Shapes on the command line: what they mean for each input, and what is wrong with them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.backends.tensorrt.shapes import ShapeRange, parse_shapes
from quantkit.errors import UsageError
from quantkit.values import ModelInput

IMAGE = ModelInput("image", "float32", ("N", 3, 224, 224))
FREE = ModelInput("free", "float32", ("N", 3, None, "W"))
FIXED = ModelInput("fixed", "float32", (4, 10))
IDS = ModelInput("ids", "int64", (None,))
SCALAR = ModelInput("scalar", "float32", ())

names = st.text("ab=:x/.*-", min_size=1, max_size=8)
sizes = st.integers(1, 5000)
triples = st.lists(sizes, min_size=3, max_size=3).map(sorted)


@given(name=names, dimensions=st.lists(triples, min_size=1, max_size=5), fixed=st.lists(st.booleans(), max_size=5))
def test_whole_shapes_go_round(name: str, dimensions: list[list[int]], fixed: list[bool]) -> None:
    for place, pinned in enumerate(fixed[: len(dimensions)]):
        if pinned:
            dimensions[place] = [dimensions[place][0]] * 3
    shape = tuple(d[0] if place < len(fixed) and fixed[place] else f"d{place}" for place, d in enumerate(dimensions))
    wanted = ShapeRange(*(tuple(d[k] for d in dimensions) for k in range(3)))
    wanted_input = ModelInput(name, "float32", shape)
    assert parse_shapes([f"{name}={wanted.text}"], [wanted_input]) == {name: wanted}
    assert wanted.fixed == (wanted.least == wanted.most)


@given(batches=triples)
def test_batches_alone_take_the_rest_from_the_network(batches: list[int]) -> None:
    least, best, most = batches
    found = parse_shapes([f"image={least}:{best}:{most}"], [IMAGE])["image"]
    assert found == ShapeRange((least, 3, 224, 224), (best, 3, 224, 224), (most, 3, 224, 224))
    assert found.text == f"{least}x3x224x224:{best}x3x224x224:{most}x3x224x224"
    assert found == parse_shapes([f"image={least}x3x224x224:{best}:{most}x3x224x224"], [IMAGE])["image"]
    one = parse_shapes([f"image={best}"], [IMAGE])["image"]
    assert one.fixed
    assert one.least == one.best == one.most == (best, 3, 224, 224)
    assert parse_shapes([f"ids={best}"], [IDS])["ids"].best == (best,)


def test_inputs_that_are_not_named_get_the_default_batches() -> None:
    found = parse_shapes([], [IMAGE, FIXED, IDS, SCALAR])
    assert found == {
        "image": ShapeRange((1, 3, 224, 224), (32, 3, 224, 224), (32, 3, 224, 224)),
        "fixed": ShapeRange((4, 10), (4, 10), (4, 10)),
        "ids": ShapeRange((1,), (32,), (32,)),
        "scalar": ShapeRange((), (), ()),
    }
    assert [name for name, r in found.items() if r.fixed] == ["fixed", "scalar"]


def test_several_inputs_stand_in_one_text_or_in_several() -> None:
    together = parse_shapes(["image=1:2:3,free=1x3x8x8"], [IMAGE, FREE])
    assert together == parse_shapes(["image=1:2:3", "free=1x3x8x8"], [FREE, IMAGE])
    assert together["free"].best == (1, 3, 8, 8)


@pytest.mark.parametrize("texts", [["image=1", "image=7"], ["image=1,image=7"], ["image=1", "image=1"]])
def test_an_input_is_given_once(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="shapes= gives 'image' twice"):
        parse_shapes(texts, [IMAGE])


@pytest.mark.parametrize("text", ["4x10", "4x10:4x10:4x10", "4"])
def test_a_fixed_shape_may_be_repeated(text: str) -> None:
    assert parse_shapes([f"fixed={text}"], [FIXED])["fixed"].best == (4, 10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("other=1:8:32", "names no input of the network, which has image, free, fixed"),
        ("1:8:32", "names no input"),
        ("image=", "not a shape"),
        ("image=0:1:2", "not a shape"),
        ("image=-1", "not a shape"),
        ("image=1:8:", "not a shape"),
        ("image=1 : 8 : 32", "not a shape"),
        ("image=1x3x224xW", "not a shape"),
        ("image=1:8", "give one shape, or min:opt:max"),
        ("image=1:2:3:4", "give one shape, or min:opt:max"),
        ("image=8:1:32", "grow from min to max"),
        ("image=1:32:8", "grow from min to max"),
        ("image=1x3x224x223", "does not fit input image float32 [N,3,224,224]"),
        ("image=1x3x224", "does not fit"),
        ("free=8", "dynamic in more than its batch"),
        ("free=1x3x9x8:1x3x8x9:1x3x9x9", "grow from min to max"),
        ("fixed=1:2:4", "does not fit"),
        ("fixed=4x11", "does not fit"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)) as caught:
        parse_shapes([text, *(["free=1x3x8x8"] if "free" not in text else [])], [IMAGE, FREE, FIXED])
    assert "--shapes" in caught.value.problem


def test_a_shape_that_only_the_user_knows_is_asked_for() -> None:
    for wanted in (FREE, ModelInput("tokens", "int64", (1, "L"))):
        with pytest.raises(UsageError, match="dynamic in more than its batch"):
            parse_shapes([], [wanted])


@pytest.mark.parametrize("shape", [("N", "length", 16), ("N", 3, "h", "w"), (1, "L"), ("N", 5), (None, None, None)])
def test_the_example_of_a_missing_shape_can_be_used_as_it_is(shape: tuple[int | str | None, ...]) -> None:
    inputs = [ModelInput("x", "float32", shape), ModelInput("other", "float32", ("N", "L"))]
    with pytest.raises(UsageError) as caught:
        parse_shapes([], inputs)
    assert "image" not in caught.value.remedy
    texts = [word for word in caught.value.remedy.split() if "=" in word]
    assert parse_shapes(texts, inputs).keys() == {"x", "other"}
