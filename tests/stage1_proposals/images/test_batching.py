"""Input sizes, loading and batches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stage1_proposals.images.batching import LoadedImage, batch_by_size, input_size, load_image, load_images

sides = st.integers(1, 5000)


@given(sides, sides, st.integers(32, 1000), st.integers(0, 1000), st.sampled_from([16, 32]))
def test_input_sizes_are_whole_cells_within_half_a_cell_of_the_target_and_its_limits(
    height: int, width: int, short_side: int, extra: int, stride: int
) -> None:
    long_side = short_side + extra
    scale = min(short_side / min(height, width), long_side / max(height, width))
    for target, size in zip(
        (height * scale, width * scale), input_size(height, width, short_side, long_side, stride), strict=True
    ):
        assert size % stride == 0
        assert stride <= size <= max(stride, long_side)
        assert abs(size - min(max(target, stride), long_side // stride * stride)) <= stride / 2


@given(sides, sides)
def test_input_size_turns_with_the_image(height: int, width: int) -> None:
    assert input_size(height, width, 800, 1333, 32) == input_size(width, height, 800, 1333, 32)[::-1]


def test_input_size_known_values() -> None:
    assert input_size(480, 640, 480, 800, 32) == (480, 640)
    assert input_size(1000, 4000, 480, 800, 32) == (192, 800)
    assert input_size(480, 1000, 800, 1333, 32) == (640, 1312)  # of 41.66 cells, 42 would exceed the limit


def test_at_full_size_only_images_beyond_the_limit_become_smaller() -> None:
    assert input_size(256, 320, 800, 4096, 32, full_size=True) == input_size(256, 320, 800, 4096, 32)
    assert input_size(2000, 3000, 800, 4096, 16, full_size=True) == (2000, 3008)
    assert input_size(4000, 8000, 800, 4096, 32, full_size=True) == (2048, 4096)


def test_large_images_share_batches_of_fewer() -> None:
    images = [LoadedImage(index, (1, 1), np.zeros((20, 10, 3), np.uint8)) for index in range(5)]
    for max_side, expected in ((None, [4, 1]), (20, [4, 1]), (10, [2, 2, 1]), (5, [1] * 5)):
        assert [len(batch) for batch in batch_by_size(images, 4, max_side)] == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 3), max_size=20), st.integers(1, 5))
def test_batches_hold_each_image_once_and_one_size_each(sizes: list[int], batch_size: int) -> None:
    images = [LoadedImage(index, (1, 1), np.zeros((size, 1, 3), np.uint8)) for index, size in enumerate(sizes)]
    batches = list(batch_by_size(images, batch_size))
    assert sorted(image.index for batch in batches for image in batch) == list(range(len(images)))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(len({image.pixels.shape for image in batch}) == 1 for batch in batches)
    assert [[image.index for image in batch] for batch in batch_by_size(iter(images), batch_size)] == [
        [image.index for image in batch] for batch in batches
    ]


def image(path: Path, height: int, width: int) -> Path:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_is_resized_and_keeps_its_own_size(tmp_path: Path) -> None:
    loaded = load_image(image(tmp_path / "a.png", 100, 200), 7, 64, 128, 32)
    assert (loaded.index, loaded.size, loaded.pixels.shape, loaded.error) == (7, (100, 200), (64, 128, 3), None)
    assert loaded.pixels[:, :60].max() == 0
    assert loaded.pixels[:, 68:].min() == 255


def test_at_full_size_a_jpeg_is_not_decoded_at_less(tmp_path: Path) -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=95)
    loaded = load_image(tmp_path / "a.jpg", 0, 64, 1024, 32, full_size=True)
    assert loaded.pixels.shape == (640, 640, 3)
    assert loaded.pixels[:, ::2].mean() - loaded.pixels[:, 1::2].mean() > 200


def test_an_image_that_cannot_be_read_comes_with_its_error(tmp_path: Path) -> None:
    loaded = load_image(tmp_path / "gone.jpg", 3, 64, 128, 32)
    assert (loaded.index, loaded.error) == (3, "does not exist")


@pytest.mark.parametrize("prefetch", [1, 4, 100])
def test_images_come_in_order_with_any_number_of_threads(tmp_path: Path, prefetch: int) -> None:
    # The first ones are the slowest.
    paths = [image(tmp_path / f"{index}.png", 800 // (index + 1), 800) for index in range(8)]
    loaded = list(load_images([*paths, tmp_path / "gone.png"], 32, 64, 32, threads=4, prefetch=prefetch))
    assert [item.index for item in loaded] == list(range(9))
    assert [item.size[0] for item in loaded] == [*(800 // (index + 1) for index in range(8)), 0]
