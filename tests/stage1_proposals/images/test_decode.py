"""Images as a person sees them; anything else is an ImageError that says why."""

import io
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stage1_proposals.images import decode as images
from stage1_proposals.images.decode import MAX_PIXELS, REDUCING_GAP, ImageError, read_image, read_reduced, read_size

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
@pytest.mark.parametrize(("name", "tolerance"), [("image.png", 0), ("image.jpg", 4)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str, tolerance: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = pattern(cell=16)
    path = saved(tmp_path / name, Image.fromarray(stored), exif=exif, quality=100, subsampling=0)
    expected = AS_SEEN[orientation](stored).astype(int)
    assert np.abs(read_image(path) - expected).max() <= tolerance


FORMATS_WITH_EXIF = ["image.png", "image.jpg", "image.tif", "image.webp", "image.avif"]


@pytest.mark.parametrize("orientation", AS_SEEN)
@pytest.mark.parametrize("name", FORMATS_WITH_EXIF)
def test_the_size_is_that_of_the_decoded_image(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / name, Image.fromarray(pattern(cell=16)), exif=exif)
    assert read_size(path) == read_image(path).shape[:2] == ((48, 32) if orientation >= 5 else (32, 48))


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.ppm", "a.jp2"])
def test_the_size_of_formats_without_exif(tmp_path: Path, name: str) -> None:
    assert read_size(saved(tmp_path / name, Image.fromarray(pattern(cell=16)))) == (32, 48)


def test_the_size_is_read_without_decoding(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(pattern(cell=160)))
    path.write_bytes(path.read_bytes()[:1000])
    assert read_size(path) == (320, 480)
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


def test_the_size_of_a_file_that_is_not_a_usable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_size(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(ImageError, match="is not an image"):
        read_size(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(gif(65_535, 65_535))
    with pytest.raises(ImageError, match="too large"):
        read_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("orientation", AS_SEEN)
@pytest.mark.parametrize("name", FORMATS_WITH_EXIF)
def test_a_reduced_image_has_its_own_size_and_enough_pixels(tmp_path: Path, orientation: int, name: str) -> None:
    """Odd sizes: what a decoder rounds up, the size must not follow."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(pattern(cell=160)).resize((483, 317), Image.Resampling.BICUBIC)
    path = saved(tmp_path / name, image, exif=exif)
    whole = read_image(path)
    for short_side in (10, 40, 100, 400):
        pixels, size = read_reduced(path, short_side)
        assert size == whole.shape[:2]
        assert min(pixels.shape[:2]) >= min(REDUCING_GAP * short_side, 317)
        small, expected = (
            np.asarray(Image.fromarray(each).resize((32, 32), Image.Resampling.BILINEAR), np.int16)
            for each in (pixels, whole)
        )
        assert np.abs(small - expected).mean() < 3


def test_only_large_jpegs_are_reduced(tmp_path: Path) -> None:
    image = Image.fromarray(pattern(cell=160))
    large, small = saved(tmp_path / "a.jpg", image), saved(tmp_path / "b.jpg", image.resize((90, 60)))
    assert read_reduced(large, 40)[0].shape == (80, 120, 3)
    assert np.array_equal(read_reduced(small, 40)[0], read_image(small))
    for name in ("a.png", "a.webp"):
        path = saved(tmp_path / name, image)
        assert np.array_equal(read_reduced(path, 40)[0], read_image(path))


def test_an_image_that_cannot_be_read_cannot_be_reduced(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(ImageError, match="is not an image"):
        read_reduced(tmp_path / "a.jpg", 10)


def test_every_image_is_rgb_uint8(tmp_path: Path) -> None:
    pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(pattern())))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, pattern())


def test_greyscale_has_three_equal_channels(tmp_path: Path) -> None:
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    assert np.array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(grey))), np.dstack([grey] * 3))


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert read_image(saved(tmp_path / "a.png", bits)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(("name", "tolerance"), [("a.tif", 0), ("a.jpg", 12)])
def test_cmyk_inks_are_seen_as_their_colours(tmp_path: Path, name: str, tolerance: int) -> None:
    inks = np.array([[(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255)]], np.uint8)
    seen = np.array([[(255, 255, 255), (0, 255, 255), (255, 0, 255), (0, 0, 0)]])
    path = saved(tmp_path / name, Image.fromarray(inks.repeat(16, 0).repeat(16, 1), "CMYK"))
    assert np.abs(read_image(path) - seen.repeat(16, 0).repeat(16, 1)).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_a_palette_is_looked_up(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, Image.fromarray(pattern()).convert("P", palette=Image.Palette.ADAPTIVE))
    assert np.array_equal(read_image(path), pattern())


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_entry_is_white(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path / name, image, transparency=1)
    assert read_image(path).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_alpha_is_seen_against_white(tmp_path: Path) -> None:
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]], np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert read_image(path).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_grey_with_alpha_is_seen_against_white(tmp_path: Path) -> None:
    pixels = np.array([[(10, 255), (10, 0)]], np.uint8)
    assert read_image(saved(tmp_path / "a.png", Image.fromarray(pixels, "LA"))).tolist() == [[[10] * 3, [255] * 3]]


def test_a_transparent_colour_of_rgb_is_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(pattern()), transparency=(255, 0, 0))
    expected = pattern()
    expected[0, 0] = 255
    assert np.array_equal(read_image(path), expected)


SIXTEEN_BITS = np.array([[0, 257, 32896, 65535]])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_full_range(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, Image.fromarray(SIXTEEN_BITS.astype(np.uint16)))
    assert read_image(path).tolist() == [[[value] * 3 for value in (0, 1, 128, 255)]]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_fewer_bits_in_a_16_bit_file_fill_the_range(tmp_path: Path, name: str, bits: int) -> None:
    """Cameras and microscopes store 10 to 14 bits so."""
    highest = 2**bits - 1
    values = np.array([[0, highest // 5, highest]], np.uint16)
    path = saved(tmp_path / name, Image.fromarray(values))
    assert read_image(path)[0, :, 0].tolist() == [0, 51, 255]
    assert read_reduced(path, 1)[0][0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_fewer_bits_in_16_bit_colours_are_refused(tmp_path: Path, name: str, channels: int, bits: int) -> None:
    """Pillow keeps the upper 8 of 16 bits, so little is left of them."""
    values = np.linspace(0, 2**bits - 1, 120).astype(np.uint16).reshape(5, 8, 3)
    if channels == 4:
        values = np.concatenate([values, np.full((5, 8, 1), 65535, np.uint16)], axis=2)
    cv2.imwrite(str(tmp_path / name), values)
    if bits == 16:
        assert read_image(tmp_path / name).max() == 255
        return
    with pytest.raises(ImageError, match="has colours of 16 bits that use 14 bits at most, and would be nearly black"):
        read_image(tmp_path / name)


def test_16_bit_values_in_32_bit_integers_keep_their_full_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(SIXTEEN_BITS.astype(np.int32), "I"))
    assert read_image(path).tolist() == [[[value] * 3 for value in (0, 1, 128, 255)]]


@pytest.mark.parametrize(
    ("values", "seen"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([-10.0, 0.0, 10.0], [0, 128, 255])],
)
def test_floating_point_grey_is_brought_to_8_bits(tmp_path: Path, values: list[float], seen: list[int]) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([values], np.float32)))
    assert read_image(path).tolist() == [[[value] * 3 for value in seen]]


def encoded(format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format_, **options)
    return buffer.getvalue()


def bmp(width: int, height: int) -> bytes:
    """A BMP that claims a size."""
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("JPEG")[:-100], "truncated"),
        (b"", "is empty"),
        (b"not an image", "is not an image"),
        (bmp(0, 16), "is not an image"),
        (b"P6 0 4 255\n", "is not an image"),
    ],
    ids=["truncated", "empty", "text", "zero-wide", "zero-wide ppm"],
)
def test_a_damaged_image_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.jpg")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is a broken symbolic link"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "b.jpg")
    with pytest.raises(ImageError, match=r"cannot be read \(Too many levels of symbolic links\)"):
        read_image(tmp_path / "b.jpg")


def test_a_name_longer_than_the_file_system_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(File name too long\)"):
        read_image(tmp_path / f"{'a' * 300}.jpg")


def test_a_directory_a_fifo_a_socket_and_a_device_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")  # to open it would wait for a writer that never comes
    with pytest.raises(ImageError, match="is a FIFO, not a file"):
        read_image(tmp_path / "fifo.jpg")
    with pytest.raises(ImageError, match="is a directory, not a file"):
        read_image(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
        listener.bind("socket.jpg")
        with pytest.raises(ImageError, match="is a socket, not a file"):
            read_image(tmp_path / "socket.jpg")
    with pytest.raises(ImageError, match="is a device, not a file"):
        read_image("/dev/zero")


def test_an_image_without_permission_is_refused(
    open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    path = saved(open_folder / "a.png", Image.fromarray(pattern()))
    with as_nobody():
        assert read_image(path).shape == (2, 3, 3)
    path.chmod(0)
    with as_nobody(), pytest.raises(ImageError, match="permission denied"):
        read_image(path)


def png(width: int, height: int, extra: bytes = b"", pixels: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever pixels it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        extra and chunk(extra[:4], extra[4:]),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")])


def gif(width: int, height: int) -> bytes:
    data = bytearray(encoded("GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 10)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries


def webp(width: int, height: int) -> bytes:
    data = bytearray(encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (24, 16))]))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000),
        png(2**31 - 1, 1),
        png(20_000, 10_001),
        gif(65_535, 65_535),
        tiff(10**6, 10**6),
        bmp(60_000, 60_000),
        bmp(1, -(2**31)),
        webp(60_000, 60_000),
        b"P6 60000 60000 255\n",
    ],
    ids=["png", "wide png", "just too large png", "gif", "tiff", "bmp", "high bmp", "webp", "ppm"],
)
def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ImageError, match="is too large: it has more than 200,000,000 pixels"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_the_pixel_limit_is_the_last_size_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS == 200_000_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # not to spend the memory of the real one
    assert read_image(saved(tmp_path / "a.png", Image.new("RGB", (10, 10)))).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="too large"):
        read_image(saved(tmp_path / "b.png", Image.new("RGB", (101, 1))))


def test_pillows_warnings_are_neither_printed_nor_raised(tmp_path: Path) -> None:
    """Above half the limit and on damaged EXIF, Pillow warns; here even with Python told to raise every warning."""
    saved(tmp_path / "large.png", Image.new("1", (60, 60)))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0e\x01\x02\0\xff\0\0\0\xff\xff\xff\0"
    saved(tmp_path / "exif.jpg", Image.fromarray(pattern(cell=8)), exif=exif)
    script = (
        "from PIL import Image; from stage1_proposals.common.system import configure_process\n"
        "from stage1_proposals.images.decode import read_image; configure_process(); Image.MAX_IMAGE_PIXELS = 2000\n"
        f"print(read_image({str(tmp_path / 'large.png')!r}).shape, read_image({str(tmp_path / 'exif.jpg')!r}).shape)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert (done.stdout, done.stderr) == ("(60, 60, 3) (16, 24, 3)\n", "")


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_png_with_a_giant_compressed_chunk_is_refused(tmp_path: Path, kind: bytes) -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    head = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}[kind]
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, kind + head + bomb, b"\0\1\2\3"))
    tracemalloc.start()
    with pytest.raises(ImageError, match="Decompressed data too large"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_chunk_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1)[:33] + struct.pack(">I", 2**31 - 1) + b"iCCPk")
    with pytest.raises(ImageError, match="Truncated"):
        read_image(path)


def test_a_document_that_starts_a_program_is_no_image(tmp_path: Path) -> None:
    """Pillow gives EPS to Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="is not an image"):
        read_image(path)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (6_000, 4), (101, 1)])
def test_a_strip_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", size))
    path.write_bytes(path.read_bytes()[:60])
    for read in (read_image, read_size, lambda path: read_reduced(path, 32)):
        with pytest.raises(
            ImageError, match=rf"^is a strip of {size[0]} x {size[1]} pixels: its longer side may be at most 100 times"
        ):
            read(path)


@pytest.mark.parametrize("size", [(10_000, 100), (100, 1)])
def test_a_long_image_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    stripe = np.arange(size[0] * size[1]).astype(np.uint8).reshape(size[::-1])
    assert np.array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(stripe)))[..., 0], stripe)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_seen(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(read_image(path), np.broadcast_to(np.array([255, 0, 0], np.uint8), (16, 32, 3)))


def test_large_grey_of_16_bits_is_converted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (37, 53)).astype(np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    whole = read_image(path)
    monkeypatch.setattr(images, "VALUES_AT_ONCE", 100)
    assert np.array_equal(read_image(path), whole)
    assert np.array_equal(whole[..., 0], np.rint(values / 65535 * 255))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, np.nan]], np.float32)))
    with pytest.raises(ImageError, match="not finite"):
        read_image(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (struct.error("required argument is not an integer"), "cannot be decoded: required argument is not an integer"),
        (MemoryError(), "needs more memory than is available"),
        (ValueError("bad \0 name \ud800\n" + "x" * 10**6), "cannot be decoded: bad   name   " + "x" * 187),
    ],
)
def test_whatever_a_decoder_raises_is_that_images_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def exif_transpose(_: Image.Image, in_place: bool) -> None:
        raise error  # Pillow does, on some damaged EXIF

    path = saved(tmp_path / "a.png", Image.fromarray(pattern()))
    monkeypatch.setattr(ImageOps, "exif_transpose", exif_transpose)
    with pytest.raises(ImageError) as failure:
        read_image(path)
    assert str(failure.value) == reason


WHOLE = {
    name: encoded(format_, **options)
    for name, format_, options in [
        ("a.jpg", "JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"}),
        ("progressive.jpg", "JPEG", {"progressive": True}),
        ("a.png", "PNG", {}),
        ("a.gif", "GIF", {}),
        ("a.tif", "TIFF", {}),
        ("lzw.tif", "TIFF", {"compression": "tiff_lzw"}),
        ("a.webp", "WEBP", {}),
        ("a.bmp", "BMP", {}),
        ("a.ppm", "PPM", {}),
        ("a.jp2", "JPEG2000", {}),
        ("a.avif", "AVIF", {}),
    ]
}


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_pixels_or_an_image_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(WHOLE[name])
    for position, flip in flips:
        data[position % len(data)] ^= flip
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # no flipped byte may ask for gigabytes
    try:
        pixels = read_image(tmp_path / name)
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@pytest.mark.parametrize("boxes", ["of a length", "the last to the end", "none"])
def test_jpeg_2000_cut_anywhere_is_refused(tmp_path: Path, boxes: str) -> None:
    """Cut right before its first tile, OpenJPEG would read it as black."""
    whole = WHOLE["a.jp2"]
    start = whole.index(b"jp2c") - 4
    if boxes == "none":
        whole = whole[start + 8 :]
    elif boxes == "the last to the end":
        whole = whole[:start] + bytes(4) + whole[start + 4 :]
    (tmp_path / "a.jp2").write_bytes(whole)
    assert read_image(tmp_path / "a.jp2").any()
    for length in range(len(whole)):
        (tmp_path / "a.jp2").write_bytes(whole[:length])
        with pytest.raises(ImageError):
            read_image(tmp_path / "a.jp2")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WHOLE)), share=st.floats(0, 1, exclude_max=True))
def test_an_image_cut_anywhere_is_whole_or_refused(tmp_path: Path, name: str, share: float) -> None:
    """Never padded: only what no pixel needs may be missing."""
    (tmp_path / name).write_bytes(WHOLE[name])
    whole = read_image(tmp_path / name)
    (tmp_path / name).write_bytes(WHOLE[name][: int(share * len(WHOLE[name]))])
    try:
        pixels = read_image(tmp_path / name)
    except ImageError:
        return
    assert np.array_equal(pixels, whole)
