import numpy as np
import pytest
from PIL import Image

from stage1_proposals.analysis.statistics import image_of, sample
from stage1_proposals.images.decode import ImageError


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    """Five images in two shards, one mask each."""
    mask = rectangles([(4, 4, 30, 30)], 48, 64)
    records = [make_record(image, f"{image}.png", mask, np.zeros((1, 4))) for image in range(5)]
    return write_shards([records[:3], records[3:]])


def test_as_many_images_as_asked_for_are_chosen_in_order_the_same_for_the_same_seed(shards, tmp_path):
    def chosen(count, seed):
        found = list(sample(shards, tmp_path / "images", count, seed))
        assert all(image.shape == (48, 64, 3) for _, image in found)
        return [record.image_id for record, _ in found]

    assert chosen(9, 0) == [0, 1, 2, 3, 4]
    some = {seed: chosen(3, seed) for seed in range(6)}
    assert all(len(ids) == 3 and ids == sorted(ids) for ids in some.values())
    assert len({tuple(ids) for ids in some.values()}) > 1
    assert chosen(3, 0) == some[0]


def test_images_that_cannot_be_had_come_with_the_reason(shards, tmp_path):
    (tmp_path / "images" / "1.png").unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "4.png")
    found = {record.file_name: image for record, image in sample(shards, tmp_path / "images", 5, 0)}
    reasons = {name: str(image) for name, image in found.items() if isinstance(image, ImageError)}
    assert reasons == {
        "1.png": "does not exist",
        "4.png": "is 64 x 64 pixels now, but its masks are for 64 x 48",
    }


def test_an_image_is_that_of_its_record(shards, tmp_path):
    record = next(shards.records())
    assert image_of(record, tmp_path / "images").shape == (48, 64, 3)
    with pytest.raises(ImageError, match="does not exist"):
        image_of(record, tmp_path)
