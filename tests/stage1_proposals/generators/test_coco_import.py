"""Masks of other programs, in every form that COCO JSON has."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.coco_import import ImportGenerator
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.decode import ImageError
from stage1_proposals.images.listing import ImageList
from stage1_proposals.jobs.request import Job, Recipe

SIZE = (20, 30)


def square(left: int, top: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def annotation(segmentation: Any, image_id: int | str = 7, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "segmentation": segmentation, **more}


def coco(*annotations: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "sub/a.jpg", "height": SIZE[0], "width": SIZE[1]}]
    return {"images": images, "annotations": list(annotations), "categories": []}


def propose(data: Any, folder: Path, image: ImageInfo | None = None, **settings: Any) -> Proposals | ImageError:
    (folder / "masks.json").write_text(json.dumps(data))
    generator = ImportGenerator(str(folder / "masks.json"), **settings)
    (proposals,) = generator(Batch(torch.rand(1, 4, 2, 3), [image or ImageInfo(7, "sub/a.jpg", SIZE)]))
    return proposals


def masks_of(proposals: Proposals | ImageError) -> list[np.ndarray]:
    assert isinstance(proposals, Proposals)
    return [coco_mask.decode({"size": list(SIZE), "counts": counts}) for counts in proposals.rle]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[5, 3, 11, 3, 11, 9, 5, 9]],
        compressed(square(5, 3, 6)),
        {"size": list(SIZE), "counts": [5 * 20 + 3, *[6, 14] * 5, 6, 20 * 30 - (10 * 20 + 9)]},
    ],
    ids=["polygon", "compressed RLE", "uncompressed RLE"],
)
def test_every_form_of_mask_is_read(tmp_path: Path, segmentation: Any) -> None:
    (mask,) = masks_of(propose(coco(annotation(segmentation)), tmp_path))
    assert np.array_equal(mask, square(5, 3, 6))


def test_the_best_scored_masks_come_first(tmp_path: Path) -> None:
    squares = {0.3: square(0, 0, 3), 0.9: square(5, 5, 4), 0.6: square(10, 10, 5)}
    data = coco(*(annotation(compressed(mask), score=score) for score, mask in squares.items()))
    proposals = propose(data, tmp_path, max_proposals=2, min_score=0.2)
    assert isinstance(proposals, Proposals)
    assert proposals.scores.tolist() == pytest.approx([0.9, 0.6])
    assert all(np.array_equal(m, squares[s]) for m, s in zip(masks_of(proposals), (0.9, 0.6), strict=True))
    assert len(masks_of(propose(data, tmp_path, min_score=0.5))) == 2


def test_crowds_and_empty_masks_are_left_out(tmp_path: Path) -> None:
    crowd = annotation(compressed(square(0, 0, 3)), iscrowd=1)
    assert masks_of(propose(coco(crowd, annotation(compressed(square(0, 0, 0)))), tmp_path)) == []


@pytest.mark.parametrize("name", ["sub/a.jpg", "b/a.jpg", "a.jpg"])
def test_a_data_sets_images_are_found_by_path_or_name(tmp_path: Path, name: str) -> None:
    data = coco(annotation(compressed(square(1, 1, 2))))
    assert len(masks_of(propose(data, tmp_path, ImageInfo(1, name, SIZE)))) == 1


def test_images_of_one_file_name_keep_their_own_masks(tmp_path: Path) -> None:
    """Images with one file name are distinguished by their paths; the ids of a data set do not matter."""
    data = coco(annotation(compressed(square(1, 1, 2))), annotation(compressed(square(5, 5, 4)), 8))
    data["images"].append({"id": 8, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]})
    for name, mask in (("sub/a.jpg", square(1, 1, 2)), ("a.jpg", square(5, 5, 4))):
        (found,) = masks_of(propose(data, tmp_path, ImageInfo(1, name, SIZE)))
        assert np.array_equal(found, mask)
    for unknown in (ImageInfo(1, "c/a.jpg", SIZE), ImageInfo(7, "other.jpg", SIZE)):
        assert masks_of(propose(data, tmp_path, unknown)) == []


def test_an_image_that_the_file_does_not_name_has_no_proposals(tmp_path: Path) -> None:
    data = coco(annotation(compressed(square(1, 1, 2))))
    assert masks_of(propose(data, tmp_path, ImageInfo(1, "c.jpg", SIZE))) == []


def test_a_list_of_results_finds_images_by_id(tmp_path: Path) -> None:
    assert len(masks_of(propose([annotation(compressed(square(1, 1, 2)), score=0.5)], tmp_path))) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (coco(annotation([[5, 3, 11, 3, 11, 9]])), "is 40 x 30, and 20 x 30 in masks.json"),
        ([annotation(compressed(square(1, 1, 2)))], "has a mask that cannot be used: .*its size is"),
    ],
)
def test_an_image_of_another_size_is_a_failure_with_its_reason(tmp_path: Path, data: Any, reason: str) -> None:
    found = propose(data, tmp_path, ImageInfo(7, "sub/a.jpg", (40, 30)))
    assert isinstance(found, ImageError)
    with pytest.raises(ImageError, match=reason):
        raise found


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2]],
        {"size": list(SIZE)},
        {"size": list(SIZE), "counts": 5},
        {**compressed(np.ones((90, 90), np.uint8)), "size": list(SIZE)},
    ],
)
def test_a_mask_that_cannot_be_read_is_the_images_failure(tmp_path: Path, segmentation: Any) -> None:
    assert isinstance(propose(coco(annotation(segmentation)), tmp_path), ImageError)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[1]", r"results\[0\] has no `image_id`"),
        (
            '[{"image_id": 1, "iscrowd": "0", "segmentation": []}]',
            r"results\[0\]: `iscrowd` is neither 0 nor 1 \('0'\)",
        ),
        ('[{"image_id": 1, "score": "high", "segmentation": []}]', r"results\[0\]: `score` is no number"),
        ('[{"image_id": 1}]', r"results\[0\]: has no `segmentation`"),
        ("{}", "not COCO JSON, it has no list `images`"),
        ('{"annotations": [{}], "images": []}', r"annotations\[0\] has no `image_id`"),
        ('"x"', "not COCO JSON"),
    ],
)
def test_a_file_that_is_not_coco_json_is_refused_before_any_work(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "masks.json").write_text(text)
    with pytest.raises(UserError, match=rf"^masks to import .*masks\.json: {fault}"):
        build_generator({"name": "import", "file": str(tmp_path / "masks.json")}).parameters()


def test_a_data_set_without_sizes_and_with_ids_of_text_is_read(tmp_path: Path) -> None:
    data = coco(annotation(compressed(square(1, 1, 2)), "seven"))
    data["images"] = [{"id": "seven", "file_name": "sub/a.jpg", "height": None}]
    assert len(masks_of(propose(data, tmp_path))) == 1


def test_settings_count_the_files_content_and_travel_without_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, image_id in zip(paths, (1, 1, 2), strict=True):
        path.write_text(json.dumps([annotation(compressed(square(1, 1, 2)), image_id)]))
    first, same, other = (ImportGenerator(str(path)).parameters()["sha256"] for path in paths)
    assert first == same != other
    generator = ImportGenerator(str(paths[0]))
    generator.parameters()
    assert len(pickle.dumps(generator)) < 1000
    assert pickle.loads(pickle.dumps(generator)) == generator


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": list(SIZE), "counts": [100, 50, 30]},
        {"size": list(SIZE), "counts": [100, 450, 300]},
        {"size": list(SIZE), "counts": "~~"},
        [[5, 3, 11, 3, 1e12, 9]],
    ],
)
def test_a_mask_that_does_not_fit_its_image_is_the_images_failure(tmp_path: Path, segmentation: Any) -> None:
    found = propose(coco(annotation(segmentation, id=3)), tmp_path)
    assert isinstance(found, ImageError)
    assert "masks.json: annotation 3 of image 'sub/a.jpg': `segmentation` is no polygons or run lengths" in str(found)


def test_a_mask_that_contradicts_itself_is_the_images_failure(tmp_path: Path) -> None:
    stated = {"bbox": [12, 10, 15, 8], "area": 110}
    assert isinstance(propose(coco(annotation([[1, 1, 4, 1, 4, 4]], **stated)), tmp_path), ImageError)


def test_paths_of_windows_are_found(tmp_path: Path) -> None:
    data = coco(annotation(compressed(square(1, 1, 2))))
    data["images"][0]["file_name"] = "sub\\a.jpg"
    data["images"].append({"id": 8, "file_name": "other\\a.jpg"})
    assert len(masks_of(propose(data, tmp_path))) == 1


def generator_of(data: Any, folder: Path) -> ImportGenerator:
    (folder / "masks.json").write_text(json.dumps(data))
    return ImportGenerator(str(folder / "masks.json"))


def test_a_file_that_has_none_of_the_images_is_refused_with_names_of_both(tmp_path: Path) -> None:
    masks = annotation(compressed(square(1, 1, 2)))
    generator = generator_of(coco(masks), tmp_path)
    generator.check_images({"other/a.jpg": 1, "b.jpg": 2})
    with pytest.raises(
        UserError,
        match=r"masks\.json: has masks of none of the 3 images; its names are 'sub/a\.jpg', the images' are 'b\.jpg', "
        r"'c\.jpg', \.\.\.$",
    ):
        generator.check_images({"b.jpg": 1, "c.jpg": 2, "d.jpg": 3})
    with pytest.raises(UserError, match=r"none of the 1 images; its ids are '7', the images' are '5'$"):
        generator_of([masks], tmp_path).check_images({"a.jpg": 5})
    with pytest.raises(UserError, match=r"none of the 1 images; its names are none, the"):
        generator_of({"images": [], "annotations": []}, tmp_path).check_images({"a.jpg": 5})


def test_a_file_name_that_several_images_have_finds_no_masks_of_another_path(tmp_path: Path) -> None:
    generator = generator_of(coco(annotation(compressed(square(1, 1, 2)))), tmp_path)
    generator.check_images({"x/a.jpg": 1, "y/a.jpg": 2, "sub/a.jpg": 3})
    for sent in (generator, pickle.loads(pickle.dumps(generator))):
        infos = [ImageInfo(number, name, SIZE) for number, name in enumerate(("x/a.jpg", "y/a.jpg", "sub/a.jpg"), 1)]
        found = sent(Batch(torch.rand(3, 4, 2, 3), infos))
        assert [len(masks_of(each)) for each in found] == [0, 0, 1]


def test_an_image_named_twice_is_refused(tmp_path: Path) -> None:
    data = coco(annotation(compressed(square(1, 1, 2))))
    data["images"].append({"id": 8, "file_name": "./sub/a.jpg"})
    with pytest.raises(UserError, match=r"images\[0\] and images\[1\] are the same image \('sub/a\.jpg'\)"):
        generator_of(data, tmp_path).parameters()


def test_a_job_of_other_images_is_refused_before_it_starts(tmp_path: Path) -> None:
    generator = generator_of(coco(annotation(compressed(square(1, 1, 2)))), tmp_path)
    images = ImageList(tmp_path, ("b.jpg",), (1,))
    with pytest.raises(UserError, match="has masks of none of the 1 images"):
        Job(images, Recipe(generator, "lite0_imagenet", None, "cpu")).request()


def test_masks_of_images_that_the_file_does_not_list_are_refused_or_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = compressed(square(1, 1, 2))
    with pytest.raises(UserError, match=r"^masks to import .*masks\.json: none of its 1 annotations is of one of its"):
        generator_of(coco(annotation(mask, 1007)), tmp_path).check_images({"sub/a.jpg": 1})
    generator_of(coco(annotation(mask), annotation(mask, 1007)), tmp_path).check_images({"sub/a.jpg": 1})
    assert "masks.json: 1 of 2 annotations are of unknown images and left out; the first, annotations[1]" in caplog.text


@pytest.mark.parametrize(("number", "image_id"), [("7", 7), (7, "7")])
def test_a_data_sets_ids_are_numbers_or_their_digits(tmp_path: Path, number: int | str, image_id: int | str) -> None:
    data = coco(annotation(compressed(square(1, 1, 2)), image_id))
    data["images"][0]["id"] = number
    assert len(masks_of(propose(data, tmp_path))) == 1
