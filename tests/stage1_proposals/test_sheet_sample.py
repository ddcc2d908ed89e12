import numpy as np
import pytest
from PIL import Image

from stage1_proposals.photos import PhotoError
from stage1_proposals.sheet_sample import photo_of, sample


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    """Five photos in two shards, one mask each."""
    mask = rectangles([(4, 4, 30, 30)], 48, 64)
    records = [make_record(image, f"{image}.png", mask, np.zeros((1, 4))) for image in range(5)]
    return write_shards([records[:3], records[3:]])


def test_as_many_photos_as_asked_for_are_chosen_in_order_the_same_for_the_same_seed(shards, tmp_path):
    def chosen(count, seed):
        found = list(sample(shards, tmp_path / "photos", count, seed))
        assert all(photo.shape == (48, 64, 3) for _, photo in found)
        return [record.image_id for record, _ in found]

    assert chosen(9, 0) == [0, 1, 2, 3, 4]
    some = {seed: chosen(3, seed) for seed in range(6)}
    assert all(len(ids) == 3 and ids == sorted(ids) for ids in some.values())
    assert len({tuple(ids) for ids in some.values()}) > 1
    assert chosen(3, 0) == some[0]


def test_photos_that_cannot_be_had_come_with_the_reason(shards, tmp_path):
    (tmp_path / "photos" / "1.png").unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "4.png")
    found = {record.file_name: photo for record, photo in sample(shards, tmp_path / "photos", 5, 0)}
    reasons = {name: str(photo) for name, photo in found.items() if isinstance(photo, PhotoError)}
    assert reasons == {
        "1.png": "does not exist",
        "4.png": "is 64 x 64 pixels now, but its masks are for 64 x 48",
    }


def test_a_photo_is_that_of_its_record(shards, tmp_path):
    record = next(shards.records())
    assert photo_of(record, tmp_path / "photos").shape == (48, 64, 3)
    with pytest.raises(PhotoError, match="does not exist"):
        photo_of(record, tmp_path)
