"""From a file to the network's input: every kind of image, every resize rule, arithmetic to the last bit."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from quantkit.data.pixels import RESAMPLING, UnreadableError, decode, level_table, normalise, transform
from quantkit.preprocess import Preprocess

ORIENTATION = 0x0112
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
RANDOM = np.random.default_rng(7)
COLOUR = RANDOM.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (13, 17), dtype=np.uint8)
DEEP = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)

small_images = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda hw: arrays(np.uint8, (*hw, 3)))
sides = st.integers(1, 24)


def spec(size: tuple[int, int], **fields: Any) -> Preprocess:
    """A resolved spec: uint8 RGB, height × width × channels, unless told otherwise."""
    return Preprocess(size=size, **{"channels": "rgb", "layout": "nhwc", "dtype": "uint8", **fields})


def encoded(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def as_it_is(content: bytes, shape: tuple[int, ...], **fields: Any) -> NDArray[Any]:
    return decode(content, spec((shape[0], shape[1]), resize="none", **fields))


@pytest.mark.parametrize("kind", LOSSLESS)
@given(pixels=small_images)
def test_lossless_files_give_their_pixels(kind: str, pixels: NDArray[np.uint8]) -> None:
    content = encoded(pixels, kind, **LOSSLESS[kind])
    assert np.array_equal(as_it_is(content, pixels.shape), pixels)
    assert np.array_equal(as_it_is(content, pixels.shape, channels="bgr"), pixels[..., ::-1])
    assert np.array_equal(as_it_is(content, pixels.shape, layout="nchw"), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 2}])
def test_jpeg_gives_what_the_library_decodes(options: dict[str, Any]) -> None:
    content = encoded(COLOUR, "JPEG", **options)
    assert np.array_equal(as_it_is(content, COLOUR.shape), np.asarray(Image.open(BytesIO(content))))


TURNED = {
    1: COLOUR,
    2: COLOUR[:, ::-1],
    3: COLOUR[::-1, ::-1],
    4: COLOUR[::-1],
    5: COLOUR.swapaxes(0, 1),
    6: np.rot90(COLOUR, -1),
    7: np.rot90(COLOUR, 2).swapaxes(0, 1),
    8: np.rot90(COLOUR),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = LOSSLESS.get(kind, {"quality": 100, "subsampling": 0})
    turned = TURNED[orientation]
    decoded = as_it_is(encoded(COLOUR, kind, exif=exif, **lossless), turned.shape)
    assert np.abs(decoded.astype(int) - turned).max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("rule", ["exact", "shortest", "letterbox"])
@pytest.mark.parametrize("shape", [(450, 600), (601, 803), (1501, 2001)])
@pytest.mark.slow
def test_a_large_jpeg_is_turned_and_its_reduced_decoding_is_close_to_the_full_one(
    shape: tuple[int, int], rule: Any
) -> None:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / (shape[0] / 5)
    scene = np.stack([np.sin(3 * x) * np.cos(2 * y), np.sin(x * y), np.cos(5 * y)], axis=-1)
    pixels = np.rint(127.5 + 120 * scene).astype(np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    asked = spec((56, 64), resize=rule, crop_fraction=0.875, dtype="float32")
    reduced = decode(encoded(pixels, "JPEG", quality=95, exif=exif), asked)
    full = decode(encoded(np.rot90(pixels, -1)), asked)
    assert np.abs(reduced - full).mean() < 0.4
    assert np.abs(reduced - full).max() <= 5


def palette_image(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    image = Image.new("P", indices.shape[::-1])
    image.putpalette(colours.tobytes())
    image.putdata(indices.ravel().tolist())
    return image


COLOURS = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, GREY.shape, dtype=np.uint8)
THREE = np.repeat(GREY[..., None], 3, axis=2)
KINDS = {
    "grey png": (encoded(GREY), THREE),
    "grey tiff": (encoded(GREY, "TIFF"), THREE),
    "grey with alpha": (encoded(np.dstack([GREY, ALPHA])), THREE),
    "colour with alpha": (encoded(np.dstack([COLOUR, ALPHA])), COLOUR),
    "webp with alpha": (
        encoded(np.dstack([COLOUR, np.maximum(ALPHA, 1)]), "WEBP", lossless=True, exact=True),
        COLOUR,
    ),
    "palette": (encoded(palette_image(GREY, COLOURS)), COLOURS[GREY]),
    "palette, one colour transparent": (encoded(palette_image(GREY, COLOURS), transparency=3), COLOURS[GREY]),
    "palette, alpha of each colour": (
        encoded(palette_image(GREY, COLOURS), transparency=bytes(range(256))),
        COLOURS[GREY],
    ),
    "palette bmp": (encoded(palette_image(GREY, COLOURS), "BMP"), COLOURS[GREY]),
    "one bit": (encoded(Image.fromarray(GREY > 99)), 255 * np.repeat((GREY > 99)[..., None], 3, axis=2)),
    "colour, one colour transparent": (encoded(COLOUR, transparency=tuple(COLOUR[0, 0].tolist())), COLOUR),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_its_colours(kind: str) -> None:
    content, colours = KINDS[kind]
    assert np.array_equal(as_it_is(content, colours.shape), colours)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_is_the_luma_of_the_colours(kind: str) -> None:
    content, colours = KINDS[kind]
    grey = as_it_is(content, colours.shape, channels="grey")
    assert grey.shape == (*colours.shape[:2], 1)
    assert np.abs(grey[..., 0] - colours @ [0.299, 0.587, 0.114]).max() <= 1.0


def test_cmyk_jpeg_becomes_rgb() -> None:
    flat = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    content = encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(as_it_is(content, flat.shape).astype(int) - flat).max() <= 3


@pytest.mark.parametrize("file", [encoded(DEEP), encoded(DEEP, "TIFF"), encoded(DEEP.byteswap().view(">u2"), "TIFF")])
def test_sixteen_bits_keep_their_precision_in_the_range_of_eight(file: bytes) -> None:
    for channels, planes in (("grey", 1), ("rgb", 3), ("bgr", 3)):
        values = as_it_is(file, DEEP.shape, channels=channels, dtype="float32")
        assert np.array_equal(values, np.repeat((DEEP / np.float32(257))[..., None], planes, axis=2))
    assert np.array_equal(as_it_is(file, DEEP.shape, channels="grey")[..., 0], np.rint(DEEP / 257))


TEXT = b"this is no image, whatever its name says\n"
PNG, JPEG = encoded(COLOUR), encoded(COLOUR, "JPEG")
BROKEN = {
    "nothing": b"",
    "text": TEXT,
    "zero bytes": bytes(100),
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "header of a jpeg": JPEG[:20],
    "truncated png": PNG[: len(PNG) // 2],
    "header of a png": PNG[:30],
    "text behind a png header": PNG[:8] + TEXT,
    "truncated webp": encoded(COLOUR, "WEBP")[:60],
    "truncated tiff": encoded(COLOUR, "TIFF")[:300],
    "float tiff": encoded(GREY.astype(np.float32), "TIFF"),
    "32-bit integers": encoded(GREY.astype(np.int32) * 70000, "TIFF"),
    "negative integers": encoded(-GREY.astype(np.int32), "TIFF"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_gives_a_reason_without_addresses(kind: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        as_it_is(BROKEN[kind], COLOUR.shape)
    assert len(str(caught.value)) > 5
    assert "0x" not in str(caught.value)
    assert "<_io" not in str(caught.value)


def test_an_image_of_another_size_is_refused_where_nothing_is_resized() -> None:
    with pytest.raises(UnreadableError, match="17×13 pixels, not 13×17"):
        decode(PNG, spec((17, 13), resize="none"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "refused"), [(COLOUR[..., 0].size - 1, False), (COLOUR[..., 0].size // 3, True)])
def test_an_image_beyond_the_librarys_limit_is_read_or_refused(
    limit: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if refused:
        with pytest.raises(UnreadableError):
            as_it_is(PNG, COLOUR.shape)
    else:
        assert np.array_equal(as_it_is(PNG, COLOUR.shape), COLOUR)


def damaged_exif(orientation: int) -> bytes:
    """EXIF whose tag 0x0100 (a width: a whole number) is said to be text."""
    tags = struct.pack("<HHHII", 2, 0x0100, 2, 4, int.from_bytes(b"abc\0", "little"))
    tags += struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags + bytes(4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [damaged_exif(1), damaged_exif(6), b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0rubbish"])
def test_damaged_exif_does_not_make_an_image_unreadable(exif: bytes) -> None:
    content = encoded(COLOUR, "JPEG", exif=exif)
    decoded = decode(content, spec((8, 8)))
    assert decoded.shape == (8, 8, 3)


SEEDS = [
    encoded(COLOUR, "JPEG", exif=damaged_exif(6)),
    encoded(COLOUR, "BMP"),
    encoded(COLOUR, "TIFF"),
    encoded(DEEP[:9, :9]),
    encoded(palette_image(GREY, COLOURS), transparency=3),
    encoded(COLOUR, "WEBP"),
]


@given(
    content=st.sampled_from(SEEDS),
    cut=st.integers(0, 5000),
    changes=st.lists(st.tuples(st.integers(0, 4999), st.integers(0, 255)), max_size=4),
)
def test_any_damage_gives_pixels_or_a_reason_and_never_a_warning(
    content: bytes, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(content[: cut or None])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        reason = "none" if decode(bytes(damaged), spec((8, 8))).shape == (8, 8, 3) else ""
    except UnreadableError as error:
        reason = str(error)
    assert reason
    assert "0x" not in reason


@pytest.mark.parametrize("interpolation", RESAMPLING)
@given(pixels=small_images, height=sides, width=sides)
def test_exact_is_the_librarys_resize(interpolation: Any, pixels: NDArray[np.uint8], height: int, width: int) -> None:
    asked = spec((height, width), interpolation=interpolation)
    by_hand = Image.fromarray(pixels).resize((width, height), RESAMPLING[interpolation])
    assert np.array_equal(decode(encoded(pixels), asked), np.asarray(by_hand))


def torchvision(image: Image.Image, shortest: int, crop: int) -> Image.Image:
    """Resize(shortest) and CenterCrop(crop) as torchvision's functional transforms compute them."""
    width, height = image.size
    longest = int(shortest * max(width, height) / min(width, height))
    scaled = (shortest, longest) if width <= height else (longest, shortest)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - crop) / 2.0), round((scaled[1] - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))


@given(pixels=small_images, crop=sides, fraction=st.sampled_from([1.0, 0.875, 0.95, 0.5]))
@example(np.zeros((20, 30, 3), np.uint8) + np.arange(30, dtype=np.uint8)[:, None] * 8, 14, 0.875)
@example(COLOUR[:13, :13], 13, 0.875)
def test_shortest_is_torchvisions_resize_and_centre_crop(pixels: NDArray[np.uint8], crop: int, fraction: float) -> None:
    asked = spec((crop, crop), resize="shortest", crop_fraction=fraction)
    by_hand = torchvision(Image.fromarray(pixels), round(crop / fraction), crop)
    assert np.array_equal(decode(encoded(pixels), asked), np.asarray(by_hand))


@pytest.mark.parametrize("rule", ["exact", "shortest", "letterbox"])
@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.tuples(sides, sides), fraction=st.floats(0.3, 1.0))
def test_an_image_of_one_colour_fills_any_size_with_it(
    rule: Any, height: int, width: int, size: tuple[int, int], fraction: float
) -> None:
    flat = encoded(np.full((height, width, 3), (9, 90, 200), np.uint8))
    filled = decode(flat, spec(size, resize=rule, crop_fraction=fraction))
    assert filled.shape == (*size, 3)
    inside = (filled != 114).any(axis=2)
    assert (filled[inside] == (9, 90, 200)).all()
    assert inside.all() or rule == "letterbox"


@given(pixels=small_images, height=sides, width=sides, pad=st.integers(0, 255))
def test_letterbox_is_that_of_the_yolo_family(pixels: NDArray[np.uint8], height: int, width: int, pad: int) -> None:
    ratio = min(height / pixels.shape[0], width / pixels.shape[1])
    inner = max(1, round(pixels.shape[1] * ratio)), max(1, round(pixels.shape[0] * ratio))
    left, top = round((width - inner[0]) / 2 - 0.1), round((height - inner[1]) / 2 - 0.1)
    by_hand = np.full((height, width, 3), pad, np.uint8)
    scaled = np.asarray(Image.fromarray(pixels).resize(inner, Image.Resampling.BILINEAR))
    by_hand[top : top + inner[1], left : left + inner[0]] = scaled
    assert np.array_equal(decode(encoded(pixels), spec((height, width), resize="letterbox", pad=pad)), by_hand)


def test_letterbox_pads_grey_and_sixteen_bit_images_with_the_same_value() -> None:
    for pixels in (GREY, GREY.astype(np.uint16) * 257):
        for channels in ("grey", "rgb"):
            boxed = decode(encoded(pixels), spec((17, 17), resize="letterbox", pad=50, channels=channels))
            assert (boxed[[0, 1, 15, 16]] == 50).all()
            assert np.array_equal(boxed[2:15, :, 0], GREY)


scales = st.floats(1e-3, 1e3)
triples = st.tuples(*[st.floats(-300, 300)] * 3)
spreads = st.tuples(*[st.floats(1e-2, 1e3)] * 3)
numbers = arrays(np.uint8, (3, 5, 3)) | arrays(np.float32, (3, 5, 3), elements=st.floats(0, 255, width=32))
LEVELS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
"""What a spec does to 8-bit images is settled for all 256 levels, whichever of them an image has."""


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@given(pixels=numbers, scale=scales, mean=triples | st.just((2.5,)), std=spreads | st.just((0.3,)), nchw=st.booleans())
def test_normalisation_is_exact_arithmetic_rounded_once(
    dtype: str, pixels: NDArray[Any], scale: float, mean: tuple[float, ...], std: tuple[float, ...], nchw: bool
) -> None:
    def exactly(values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            return ((values.astype(np.float64) * scale - np.array(mean)) / np.array(std)).astype(dtype)

    asked = spec((3, 5), scale=scale, mean=mean, std=std, dtype=dtype, layout="nchw" if nchw else "nhwc")
    if not np.isfinite(exactly(LEVELS if pixels.dtype == np.uint8 else pixels)).all():
        with pytest.raises(UnreadableError, match=dtype):
            normalise(pixels, asked)
        return
    values = normalise(pixels, asked)
    assert values.dtype == dtype
    assert values.flags.c_contiguous
    assert np.array_equal(values.transpose(1, 2, 0) if nchw else values, exactly(pixels))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
@given(
    pixels=small_images, grey=st.booleans(), scale=scales, mean=triples | st.just((2.5,)), std=spreads | st.just((0.3,))
)
def test_an_image_becomes_to_the_bit_what_numpy_finds_in_the_table(
    channels: str,
    layout: str,
    dtype: str,
    pixels: NDArray[np.uint8],
    grey: bool,
    scale: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    image = Image.fromarray(pixels[..., 0] if grey or channels == "grey" else pixels)
    depth = 1 if channels == "grey" else 3
    table = level_table(scale, mean[:depth], std[:depth], depth, dtype)
    fields: Any = {"channels": channels, "layout": layout, "dtype": dtype}
    asked = spec(pixels.shape[:2], scale=scale, mean=mean[:depth], std=std[:depth], **fields)
    shown = np.asarray(image.convert("L" if depth == 1 else "RGB")).reshape(*pixels.shape[:2], depth)
    planes = shown[..., ::-1] if channels == "bgr" else shown
    by_numpy = np.stack([table[c][planes[..., c]] for c in range(depth)], axis=0 if layout == "nchw" else 2)
    values = transform(image, asked)
    assert values.flags.c_contiguous
    assert (values.dtype, values.shape, values.tobytes()) == (by_numpy.dtype, by_numpy.shape, by_numpy.tobytes())


def test_mean_and_std_are_in_the_order_of_the_networks_channels() -> None:
    flat = encoded(np.full((2, 2, 3), (10, 20, 30), np.uint8))
    fields = {"mean": (1.0, 2.0, 3.0), "dtype": "float32"}
    assert decode(flat, spec((2, 2), channels="bgr", **fields))[0, 0].tolist() == [29, 18, 7]
    assert decode(flat, spec((2, 2), channels="rgb", **fields))[0, 0].tolist() == [9, 18, 27]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
@given(pixels=arrays(np.uint8, (2, 3, 3)), scale=st.floats(0.1, 3), mean=st.floats(-200, 200))
def test_integer_inputs_are_rounded_and_have_to_fit(
    dtype: str, pixels: NDArray[np.uint8], scale: float, mean: float
) -> None:
    asked, limits = spec((2, 3), dtype=dtype, scale=scale, mean=(mean,)), np.iinfo(dtype)
    levels, rounded = np.rint(LEVELS * scale - mean), np.rint(pixels * scale - mean)
    if levels.min() < limits.min or levels.max() > limits.max:
        with pytest.raises(UnreadableError, match=dtype):
            transform(Image.fromarray(pixels), asked)
        return
    assert np.array_equal(transform(Image.fromarray(pixels), asked), rounded.astype(dtype))
