"""Photos as a person sees them; anything else is a PhotoError that says why."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stage1_proposals.photos import PhotoError, read_photo

ORIENTATION = 0x0112
# What a viewer does with the stored pixels for each EXIF orientation.
AS_SEEN: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def pattern(cell: int = 1) -> NDArray[np.uint8]:
    """2 x 3 cells of six colours: no flip or turn leaves it as it is."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 0, 0), (255, 255, 255)]
    return np.array(colours, np.uint8).reshape(2, 3, 3).repeat(cell, 0).repeat(cell, 1)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", AS_SEEN)
@pytest.mark.parametrize(("name", "tolerance"), [("photo.png", 0), ("photo.jpg", 4)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str, tolerance: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = pattern(cell=16)
    path = saved(tmp_path / name, Image.fromarray(stored), exif=exif, quality=100, subsampling=0)
    expected = AS_SEEN[orientation](stored).astype(int)
    assert np.abs(read_photo(path) - expected).max() <= tolerance


def test_every_photo_is_rgb_uint8(tmp_path: Path) -> None:
    pixels = read_photo(saved(tmp_path / "a.png", Image.fromarray(pattern())))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, pattern())


def test_greyscale_has_three_equal_channels(tmp_path: Path) -> None:
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    assert np.array_equal(read_photo(saved(tmp_path / "a.png", Image.fromarray(grey))), np.dstack([grey] * 3))


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert read_photo(saved(tmp_path / "a.png", bits)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(("name", "tolerance"), [("a.tif", 0), ("a.jpg", 12)])
def test_cmyk_inks_are_seen_as_their_colours(tmp_path: Path, name: str, tolerance: int) -> None:
    inks = np.array([[(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255)]], np.uint8)
    seen = np.array([[(255, 255, 255), (0, 255, 255), (255, 0, 255), (0, 0, 0)]])
    path = saved(tmp_path / name, Image.fromarray(inks.repeat(16, 0).repeat(16, 1), "CMYK"))
    assert np.abs(read_photo(path) - seen.repeat(16, 0).repeat(16, 1)).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_a_palette_is_looked_up(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, Image.fromarray(pattern()).convert("P", palette=Image.Palette.ADAPTIVE))
    assert np.array_equal(read_photo(path), pattern())


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_entry_is_white(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path / name, image, transparency=1)
    assert read_photo(path).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_alpha_is_seen_against_white(tmp_path: Path) -> None:
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]], np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert read_photo(path).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_grey_with_alpha_is_seen_against_white(tmp_path: Path) -> None:
    pixels = np.array([[(10, 255), (10, 0)]], np.uint8)
    assert read_photo(saved(tmp_path / "a.png", Image.fromarray(pixels, "LA"))).tolist() == [[[10] * 3, [255] * 3]]


def test_a_transparent_colour_of_rgb_is_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(pattern()), transparency=(255, 0, 0))
    expected = pattern()
    expected[0, 0] = 255
    assert np.array_equal(read_photo(path), expected)


SIXTEEN_BITS = np.array([[0, 257, 32896, 65535]])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_full_range(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, Image.fromarray(SIXTEEN_BITS.astype(np.uint16)))
    assert read_photo(path).tolist() == [[[value] * 3 for value in (0, 1, 128, 255)]]


def test_16_bit_values_in_32_bit_integers_keep_their_full_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(SIXTEEN_BITS.astype(np.int32), "I"))
    assert read_photo(path).tolist() == [[[value] * 3 for value in (0, 1, 128, 255)]]


@pytest.mark.parametrize(
    ("values", "seen"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([-10.0, 0.0, 10.0], [0, 128, 255])],
)
def test_floating_point_grey_is_brought_to_8_bits(tmp_path: Path, values: list[float], seen: list[int]) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([values], np.float32)))
    assert read_photo(path).tolist() == [[[value] * 3 for value in seen]]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def zero_wide_bmp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:22] = struct.pack("<i", 0)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (b"", "is empty"),
        (b"not a photo", "is not an image"),
        (zero_wide_bmp(), "is not an image"),
        (b"P6 0 4 255\n", "is not an image"),
    ],
    ids=["truncated", "empty", "text", "zero-wide", "zero-wide ppm"],
)
def test_a_damaged_photo_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=reason):
        read_photo(path)


def test_a_missing_photo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist"):
        read_photo(tmp_path / "a.jpg")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="directory"):
        read_photo(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_photo_without_permission_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(pattern()))
    path.chmod(0)
    with pytest.raises(PhotoError, match="permission denied"):
        read_photo(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (50, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PhotoError, match="too large"):
        read_photo(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, np.nan]], np.float32)))
    with pytest.raises(PhotoError, match="not finite"):
        read_photo(path)


def test_an_exception_no_decoder_should_raise_is_that_photos_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exif_transpose(_: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")  # Pillow does, on some damaged EXIF

    path = saved(tmp_path / "a.png", Image.fromarray(pattern()))
    monkeypatch.setattr(ImageOps, "exif_transpose", exif_transpose)
    with pytest.raises(PhotoError, match="not an integer"):
        read_photo(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.jpg", "a.png", "a.gif", "a.tif", "a.webp", "a.bmp"]),
    flips=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_pixels_or_a_photo_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flips: list[tuple[int, int]]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(
        tmp_path / name, Image.fromarray(pattern(cell=5)), **({} if name in ("a.gif", "a.bmp") else {"exif": exif})
    )
    data = bytearray(path.read_bytes())
    for position, flip in flips:
        data[position % len(data)] ^= flip
    path.write_bytes(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # no flipped byte may ask for gigabytes
    try:
        pixels = read_photo(path)
    except PhotoError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
