"""Class-agnostic scores: cases whose values are known, and a slow evaluation with loops."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.analysis.recall import SCORES, Labels, evaluate
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ImageRecord

SIZE = (20, 20)
IOUS = np.linspace(0.5, 0.95, 10)
Box = tuple[int, int, int, int]  # y0, x0, y1, x1
Propose = Callable[..., ImageRecord]


@pytest.fixture(scope="session")
def propose(make_record: Callable, rectangles: Callable) -> Propose:
    """(number, *(box, score)) -> the record of `dir/NUMBER.jpg` with rectangles as proposals."""

    def propose(number: int, *proposals: tuple[Box, float]) -> ImageRecord:
        masks = rectangles([box for box, _ in proposals], *SIZE)
        record = make_record(number, f"dir/{number}.jpg", masks, np.zeros((len(proposals), 2)))
        return replace(record, score=np.array([score for _, score in proposals], np.float32))

    return propose


def annotation(box: Box, crowd: bool = False) -> dict[str, Any]:
    y0, x0, y1, x1 = box
    return {
        "category_id": 1 + (y0 + x0) % 2,  # does not matter
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": int(crowd),
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
    }


def write(path: Path, objects_of: dict[int, list[dict[str, Any]]]) -> Labels:
    """Labels of `NUMBER.jpg`, whose image ids differ from the records'; annotations are numbered from 0."""
    images = [{"id": 100 + number, "file_name": f"{number}.jpg", "height": 20, "width": 20} for number in objects_of]
    objects = [(number, each) for number, annotations in objects_of.items() for each in annotations]
    annotations = [{"id": row, "image_id": 100 + number} | each for row, (number, each) in enumerate(objects)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return Labels.read(path)


def scores(ap: float, ap50: float, ar: float, ap75: float | None = None, ar100: float | None = None) -> dict[str, Any]:
    """What `evaluate` returns; by default, AP75 is AP50, and AR@100 is AR@20."""
    values = (ap, ap50, ap50 if ap75 is None else ap75, ar, ar if ar100 is None else ar100)
    return {kind: pytest.approx(dict(zip(SCORES, values, strict=True))) for kind in ("mask", "box")}


A, B = (0, 0, 10, 10), (10, 10, 20, 20)


def test_exact_proposals_score_1(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A), annotation(B)], 2: [annotation(B)]})
    assert labels.object_count == 3
    records = [propose(1, (A, 0.3), (B, 0.9)), propose(2, (B, 0.1))]
    assert evaluate(iter(records), labels) == scores(1, 1, 1)


def test_half_of_the_objects_found_is_half_of_the_recall_points(tmp_path: Path, propose: Propose) -> None:
    """Precision is 1 at the recalls 0, 0.01, ... 0.5, and 0 beyond; a worse-scored mistake costs nothing."""
    labels = write(tmp_path / "l.json", {1: [annotation(A), annotation(B)]})
    found = evaluate([propose(1, (A, 0.9), ((0, 10, 10, 20), 0.8))], labels)
    assert found == scores(51 / 101, 51 / 101, 0.5)


def test_a_better_scored_mistake_halves_the_precision(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A)]})
    assert evaluate([propose(1, (A, 0.8), (B, 0.9))], labels) == scores(0.5, 0.5, 1)


def test_an_overlap_counts_up_to_its_iou(tmp_path: Path, propose: Propose) -> None:
    """IoU 0.7: found at 0.5, 0.55, ... 0.7."""
    labels = write(tmp_path / "l.json", {1: [annotation(A)]})
    assert evaluate([propose(1, ((0, 0, 7, 10), 1.0))], labels) == scores(0.5, 1, 0.5, ap75=0)


def test_masks_and_boxes_are_scored_separately(tmp_path: Path, propose: Propose) -> None:
    """Half a square, cut at its diagonal, has the square's box."""
    triangle = annotation(A) | {"segmentation": [[0, 0, 10, 0, 0, 10]], "area": 50}
    found = evaluate([propose(1, (A, 1.0))], write(tmp_path / "l.json", {1: [triangle]}))
    assert found["box"]["AP"] == pytest.approx(1)
    assert found["mask"]["AP"] < 0.2


def test_proposals_in_a_crowd_do_not_count(tmp_path: Path, propose: Propose) -> None:
    record = propose(1, (A, 0.5), ((10, 10, 15, 15), 0.9), ((15, 15, 20, 20), 0.8))
    crowd = annotation(B, crowd=True)
    assert evaluate([record], write(tmp_path / "a.json", {1: [annotation(A), crowd]})) == scores(1, 1, 1)
    as_rle = crowd | {"segmentation": {"size": [20, 20], "counts": [210, *[10, 10] * 9, 10]}}
    assert evaluate([record], write(tmp_path / "b.json", {1: [annotation(A), as_rle]})) == scores(1, 1, 1)
    without = evaluate([record], write(tmp_path / "c.json", {1: [annotation(A)]}))
    assert without == scores(1 / 3, 1 / 3, 1)


def test_recall_is_of_the_20_best_scored_and_precision_of_100(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A)]})
    wrong = [((row, 10, row + 1, 11), 0.9) for row in range(20)]
    assert evaluate([propose(1, *wrong, (A, 0.1))], labels) == scores(1 / 21, 1 / 21, 0, ar100=1)
    assert evaluate([propose(1, *wrong[:19], (A, 0.1))], labels) == scores(1 / 20, 1 / 20, 1)


def test_images_without_a_record_are_missed_and_those_without_labels_left_out(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A)], 2: [annotation(A)]})
    assert evaluate([propose(1, (A, 0.1)), propose(3, (B, 0.9))], labels) == scores(51 / 101, 51 / 101, 0.5)
    assert evaluate([propose(1), propose(2)], labels) == scores(0, 0, 0)


def test_a_path_takes_precedence_over_a_file_name(tmp_path: Path, propose: Propose) -> None:
    """Of two images with one file name, the labels mean the one with their path."""
    records = [propose(1, (A, 0.5)), replace(propose(1), file_name="other/1.jpg")]
    write(tmp_path / "l.json", {1: [annotation(A)]})
    text = (tmp_path / "l.json").read_text()
    (tmp_path / "l.json").write_text(text.replace('"1.jpg"', '"dir/1.jpg"'))
    assert evaluate(records, Labels.read(tmp_path / "l.json")) == scores(1, 1, 1)


def iou(first: Box, second: Box, crowd: bool) -> float:
    """In a crowd, the share of the first that lies inside."""
    masks = np.zeros((2, *SIZE), bool)
    for mask, (y0, x0, y1, x1) in zip(masks, (first, second), strict=True):
        mask[y0:y1, x0:x1] = True
    shared = (masks[0] & masks[1]).sum()
    return shared / (masks[0].sum() if crowd else (masks[0] | masks[1]).sum())


def slow_scores(images: list[tuple[list[tuple[Box, bool]], list[tuple[Box, float]]]]) -> list[float]:
    """AP, AP50, AR@20, AP75, as COCO has them, of (objects (box, crowd), proposals (box, score)) per image."""
    count = sum(not crowd for objects, _ in images for _, crowd in objects)
    precisions, recalls = [], []
    for threshold in IOUS:
        outcomes = []  # (score, right); those that only a crowd covers are left out
        for objects, proposals in images:
            left = [box for box, crowd in objects if not crowd]
            for box, score in sorted(proposals, key=lambda proposal: -proposal[1]):
                overlaps = [iou(box, other, False) for other in left]
                if overlaps and max(overlaps) >= threshold:
                    outcomes.append((score, True))
                    del left[len(left) - 1 - int(np.argmax(overlaps[::-1]))]
                elif not any(crowd and iou(box, other, True) >= threshold for other, crowd in objects):
                    outcomes.append((score, False))
        outcomes.sort(key=lambda outcome: -outcome[0])
        points = []
        for row in range(len(outcomes)):
            right = sum(found for _, found in outcomes[: row + 1])
            points.append((right / count, right / (row + 1)))
        recalls.append(max((recall for recall, _ in points), default=0))
        at = [max((p for r, p in points if r >= recall), default=0) for recall in np.linspace(0, 1, 101)]
        precisions.append(sum(at) / 101)
    return [float(np.mean(precisions)), precisions[0], float(np.mean(recalls)), precisions[5]]


sides = st.tuples(st.integers(0, 6), st.integers(4, 10))
boxes = st.tuples(sides, sides).map(lambda two: (two[0][0], two[1][0], sum(two[0]), sum(two[1])))
images = st.tuples(
    st.lists(st.tuples(boxes, st.sampled_from([False, False, True])), max_size=4),
    st.lists(st.tuples(boxes, st.sampled_from([0.25, 0.5, 0.75])), max_size=6),
)


@settings(deadline=None, max_examples=40)
@given(drawn=st.lists(images, min_size=1, max_size=3))
def test_it_agrees_with_loops(drawn: list[Any], propose: Propose, tmp_path_factory: pytest.TempPathFactory) -> None:
    drawn = [*drawn, ([(A, False)], [])]  # some object
    path = tmp_path_factory.mktemp("labels") / "l.json"
    labels = write(path, {n: [annotation(*each) for each in objects] for n, (objects, _) in enumerate(drawn)})
    records = [propose(number, *proposals) for number, (_, proposals) in enumerate(drawn)]
    assert evaluate(records, labels) == scores(*slow_scores(drawn))


def test_labels_of_other_images_are_refused(tmp_path: Path, propose: Propose) -> None:
    with pytest.raises(UserError, match="none of their images is in the shards"):
        evaluate([propose(1, (A, 0.5))], write(tmp_path / "l.json", {7: [annotation(A)]}))


def test_labels_of_images_of_another_size_are_refused(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A)]})
    with pytest.raises(UserError, match=r"'1\.jpg' is 20 x 20 pixels in the labels and 40 x 20 in the shards"):
        evaluate([replace(propose(1, (A, 0.5)), width=40)], labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not COCO JSON, it has no list `images`"),
        ("{}", "not COCO JSON, it has no list `images`"),
        ('{"annotations": [{}], "images": []}', r"annotations\[0\] has no `image_id`"),
        ('{"images": [], "annotations": []}', "no objects in it"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_labels_that_are_not_coco_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "l.json").write_text(text)
    with pytest.raises(UserError, match=f"labels .*{message}"):
        Labels.read(tmp_path / "l.json")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"segmentation": [[1]]},
            "annotation 1 of image '1.jpg': `segmentation` is no polygons or run lengths of its image: a polygon",
        ),
        ({"image_id": 3}, r"annotations\[1\] has no `image_id` that is in its images"),
        ({"iscrowd": None}, r"annotation 1 of image '1.jpg': `iscrowd` is neither 0 nor 1 \(None\)"),
        ({"iscrowd": "0"}, r"annotation 1 of image '1.jpg': `iscrowd` is neither 0 nor 1 \('0'\)"),
    ],
)
def test_labels_with_a_malformed_object_are_refused(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=rf"labels .*l\.json: {fault}"):
        write(tmp_path / "l.json", {1: [annotation(A), annotation(A) | change]})


def test_labels_with_nothing_but_crowds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no objects in it"):
        write(tmp_path / "l.json", {1: [annotation(A, crowd=True)]})


@pytest.mark.parametrize("change", [{"bbox": [1, 2]}, {"bbox": None}, {"area": "large"}])
def test_what_labels_do_not_state_is_taken_from_the_masks(
    tmp_path: Path, propose: Propose, change: dict[str, Any]
) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A) | change]})
    assert evaluate([propose(1, (A, 0.9))], labels) == scores(1, 1, 1)


@pytest.mark.parametrize("size", [{}, {"height": 0, "width": -1}])
def test_sizes_that_labels_do_not_state_are_those_of_the_shards(
    tmp_path: Path, propose: Propose, size: dict[str, int]
) -> None:
    images = [{"id": 1, "file_name": "dir\\1.jpg", **size}]
    document = {"images": images, "annotations": [annotation(A) | {"image_id": 1}]}
    (tmp_path / "l.json").write_text(json.dumps(document))
    labels = Labels.read(tmp_path / "l.json")
    assert evaluate([propose(1, (A, 0.9))], labels) == scores(1, 1, 1)


def test_labels_of_other_images_are_refused_with_names_of_both(tmp_path: Path, propose: Propose) -> None:
    labels = write(tmp_path / "l.json", {1: [annotation(A)]})
    with pytest.raises(UserError, match=r"none of their images is in the shards; .*: '1\.jpg', 'dir/2\.jpg'$"):
        evaluate([propose(2, (A, 0.9))], labels)


def test_labels_of_several_images_of_one_name_match_none_by_it(tmp_path: Path, propose: Propose) -> None:
    images = [{"id": number, "file_name": f"{number}/1.jpg", "height": 20, "width": 20} for number in (1, 2)]
    document = {"images": images, "annotations": [annotation(A) | {"image_id": 1}]}
    (tmp_path / "l.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="none of their images is in the shards"):
        evaluate([propose(1, (A, 0.9))], Labels.read(tmp_path / "l.json"))
