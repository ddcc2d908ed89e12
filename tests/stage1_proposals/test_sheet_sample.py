import numpy as np
import pytest
from PIL import Image

from stage1_proposals.photos import PhotoError
from stage1_proposals.sheet_sample import draw_sample, photo_of


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    """Five photos in two shards, one mask each."""
    mask = rectangles([(4, 4, 30, 30)], 48, 64)
    records = [make_record(image, f"{image}.png", mask, np.zeros((1, 4))) for image in range(5)]
    return write_shards([records[:3], records[3:]])


def test_as_many_photos_as_asked_for_are_drawn_the_same_for_the_same_seed(shards, tmp_path):
    drawn = {seed: draw_sample(shards, tmp_path / "photos", 3, seed) for seed in (0, 1)}
    assert [(len(tiles), missing) for tiles, missing in drawn.values()] == [(3, [])] * 2
    again, _ = draw_sample(shards, tmp_path / "photos", 3, 0)
    assert [tile.tobytes() for tile in again] == [tile.tobytes() for tile in drawn[0][0]]
    assert len(draw_sample(shards, tmp_path / "photos", 9, 0)[0]) == 5


def test_photos_that_cannot_be_drawn_are_named(shards, tmp_path):
    (tmp_path / "photos" / "1.png").unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "4.png")
    tiles, missing = draw_sample(shards, tmp_path / "photos", 5, 0)
    assert len(tiles) == 3
    assert [(name, str(reason)) for name, reason in missing] == [
        ("1.png", "does not exist"),
        ("4.png", "is 64 x 64 pixels now, but its masks are for 64 x 48"),
    ]


def test_a_photo_is_that_of_its_record(shards, tmp_path):
    record = next(shards.records())
    assert photo_of(record, tmp_path / "photos").shape == (48, 64, 3)
    with pytest.raises(PhotoError, match="does not exist"):
        photo_of(record, tmp_path)
