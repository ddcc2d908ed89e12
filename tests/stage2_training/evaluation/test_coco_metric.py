import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.evaluation import CocoMetric
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import tensor

from stage1_proposals.common.coco import read_coco
from stage1_proposals.common.coco_scores import labelled_objects
from stage2_training.evaluation.coco_metric import MaskAP, score_detections
from stage2_training.evaluation.scores import AP_NAMES, SCORE_NAMES

SIZE = 128
MMDETECTION = ("mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def random_case(seed: int, detections: int) -> tuple[dict, list[dict]]:
    """COCO ground truth of three images and two classes, and noisy detections of it."""
    rng = np.random.default_rng(seed)
    images = [{"id": 10 * index, "height": SIZE, "width": SIZE, "file_name": f"{index}.png"} for index in range(1, 4)]
    annotations, results = [], []
    for image in images:
        for _ in range(5):
            x, y = rng.integers(0, 70, 2)
            w, h = rng.integers(5, 55, 2)
            box = [int(x), int(y), int(w), int(h)]
            polygon = [[int(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([3, 5])),
                    "segmentation": polygon,
                    "bbox": box,
                    "area": int(w * h),
                    "iscrowd": 0,
                }
            )
        for _ in range(detections):
            near = annotations[len(annotations) - 1 - int(rng.integers(5))]  # an object of this image
            x, y, w, h = near["bbox"] + rng.integers(-3, 4, 4)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[max(y, 0) : max(y, 0) + max(h, 1), max(x, 0) : max(x, 0) + max(w, 1)] = 1
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": near["category_id"],
                    "score": float(rng.random()),
                    "mask": mask,
                    "box": [float(v) for v in np.array([x, y, x + w, y + h]) + rng.random(4)],  # not the mask's
                }
            )
    categories = [{"id": 3, "name": "text"}, {"id": 5, "name": "sign"}, {"id": 9, "name": "unused"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def reference_scores(ann_file, results: list[dict]) -> dict[str, float]:
    """pycocotools, called as its documentation shows."""
    scores = {}
    for kind, prefix in (("segm", ""), ("bbox", "box_")):
        found = []
        for result in results:
            common = {key: result[key] for key in ("image_id", "category_id", "score")}
            x1, y1, x2, y2 = result["box"]
            box, mask = [x1, y1, x2 - x1, y2 - y1], coco_mask.encode(np.asfortranarray(result["mask"]))
            found.append(common | ({"segmentation": mask} if kind == "segm" else {"bbox": box}))
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(ann_file)
            evaluation = COCOeval(truth, truth.loadRes(found), kind)
            evaluation.params.catIds = [3, 5]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        scores |= {prefix + name: value for name, value in zip(AP_NAMES, evaluation.stats, strict=False)}
        for row, name in enumerate(("text", "sign")):
            of_class = evaluation.eval["precision"][:, :, row, 0, -1]
            scores[f"{prefix}AP of {name}"] = of_class[of_class > -1].mean() if (of_class > -1).any() else -1
    return scores


def run_metric(metric, results: list[dict], image_ids: list[int]) -> dict[str, float]:
    """Feed a metric one image at a time, as the test loop does."""
    metric.dataset_meta = {"classes": ("text", "sign")}
    for image_id in image_ids:
        of_image = [result for result in results if result["image_id"] == image_id]
        predicted = InstanceData(
            bboxes=tensor([result["box"] for result in of_image]).double().reshape(-1, 4),
            labels=tensor([(3, 5).index(result["category_id"]) for result in of_image]),
            scores=tensor([result["score"] for result in of_image]).double(),
        )
        if all("mask" in result for result in results):
            masks = np.array([result["mask"] for result in of_image]).reshape(-1, SIZE, SIZE).astype(bool)
            predicted.masks = tensor(masks)
        metric.process({}, [{"img_id": image_id, "ori_shape": (SIZE, SIZE), "pred_instances": predicted.to_dict()}])
    with contextlib.redirect_stdout(io.StringIO()):
        return metric.evaluate(len(image_ids))


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000))
def test_equals_pycocotools_and_mmdetection_to_its_three_digits(tmp_path_factory, seed):
    ann_file = str(tmp_path_factory.mktemp("coco") / "a.json")
    truth, results = random_case(seed, detections=15)
    with open(ann_file, "w") as file:
        json.dump(truth, file)
    expected = reference_scores(ann_file, results)
    classes = [f"{prefix}AP of {name}" for prefix in ("", "box_") for name in ("text", "sign")]
    assert sorted(expected) == sorted([*SCORE_NAMES, *classes])
    assert 0 < expected["AP"] != expected["box_AP"] < 1
    ours = run_metric(MaskAP(ann_file), results, [10, 20, 30])
    assert ours == pytest.approx({f"coco/{name}": value for name, value in expected.items()}, abs=1e-12)
    metric = CocoMetric(ann_file, metric=["segm", "bbox"], proposal_nums=(1, 10, 100))
    theirs = run_metric(metric, results, [10, 20, 30])
    names = [f"{kind}_{name}" for kind in ("segm", "bbox") for name in ("mAP", *MMDETECTION)]
    values = [ours[f"coco/{name}"] for name in SCORE_NAMES]
    assert [theirs[f"coco/{name}"] for name in names] == pytest.approx(values, abs=5.1e-4)


def test_known_values(tmp_path):
    """Perfect detections of everything have AP 1, none have AP 0; sizes without objects have -1."""
    truth, _ = random_case(0, detections=0)
    truth["annotations"] = [annotation | {"category_id": 3, "area": 10**4} for annotation in truth["annotations"]]
    for number, annotation in enumerate(truth["annotations"]):  # disjoint, so that every detection is its own object's
        x, y = 20 * (number % 5), 0
        annotation["segmentation"] = [[x, y, x + 10, y, x + 10, y + 99, x, y + 99]]
        annotation["bbox"] = [x, y, 10, 99]
    (tmp_path / "a.json").write_text(json.dumps(truth))
    document = read_coco(tmp_path / "a.json")
    objects = labelled_objects(document)
    perfect = [{"area": 990.0, "score": 0.5} | each for each in objects]
    ap = {"AP": 1, "AP50": 1, "AP75": 1, "AP_S": -1, "AP_M": -1, "AP_L": 1}
    both = ap | {f"box_{name}": value for name, value in ap.items()}
    for number, each in enumerate(perfect):
        each["bbox"] = objects[number]["bbox"] = truth["annotations"][number]["bbox"]
    assert score_detections(document.images, objects, perfect, [3]) == pytest.approx(both)
    nothing = {name: min(value, 0) for name, value in both.items()}
    assert score_detections(document.images, objects, [], [3]) == nothing
    merged = score_detections(document.images, objects, perfect, [3], class_agnostic=True)
    assert merged == pytest.approx(both | {"AR@20": 1, "box_AR@20": 1})


def test_one_class_and_class_agnostic_scores_are_not_given_by_class(tmp_path):
    truth, results = random_case(1, detections=15)
    (tmp_path / "two.json").write_text(json.dumps(truth))
    assert "coco/AP of sign" in run_metric(MaskAP(str(tmp_path / "two.json")), results, [10, 20, 30])
    merged = run_metric(MaskAP(str(tmp_path / "two.json"), class_agnostic=True), results, [10, 20, 30])
    truth["annotations"] = [one | {"category_id": 3} for one in truth["annotations"]]
    (tmp_path / "one.json").write_text(json.dumps(truth | {"categories": truth["categories"][:1]}))
    texts = [result | {"category_id": 3} for result in results]
    alone = run_metric(MaskAP(str(tmp_path / "one.json")), texts, [10, 20, 30])
    assert not [name for name in (*merged, *alone) if "AP of" in name]


def test_images_without_detections_count_as_missed(tmp_path):
    truth, results = random_case(1, detections=15)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    first = [result for result in results if result["image_id"] == 10]
    ours = run_metric(MaskAP(str(tmp_path / "a.json")), first, [10, 20, 30])
    assert ours["coco/AP"] == pytest.approx(reference_scores(str(tmp_path / "a.json"), first)["AP"], abs=1e-12)
    assert ours["coco/AP"] < run_metric(MaskAP(str(tmp_path / "a.json")), results, [10, 20, 30])["coco/AP"]


def test_a_detection_without_a_box_has_the_box_of_its_mask(tmp_path):
    """As in the paper's Table 6; detectors that predict no boxes return zeros."""
    truth, results = random_case(2, detections=15)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    for result in results:
        rows, columns = result["mask"].any(1).nonzero()[0], result["mask"].any(0).nonzero()[0]
        result["box"] = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    expected = reference_scores(tmp_path / "a.json", results)
    for result in results:
        result["box"] = [0.0] * 4
    ours = run_metric(MaskAP(str(tmp_path / "a.json")), results, [10, 20, 30])
    assert ours == pytest.approx({f"coco/{name}": value for name, value in expected.items()}, abs=1e-12)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_detector_without_masks_has_the_scores_of_its_boxes(tmp_path, class_agnostic):
    truth, results = random_case(2, detections=15)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    metric = MaskAP(str(tmp_path / "a.json"), class_agnostic)
    expected = run_metric(metric, results, [10, 20, 30])
    for result in results:
        del result["mask"]
    ours = run_metric(MaskAP(str(tmp_path / "a.json"), class_agnostic), results, [10, 20, 30])
    assert ours == {name: value for name, value in expected.items() if name.startswith("coco/box_")}
    assert 0 < ours["coco/box_AP"] < 1


def test_class_agnostic_scores_are_those_of_labels_with_one_class(tmp_path):
    truth, results = random_case(3, detections=30)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    metric = MaskAP(str(tmp_path / "a.json"), class_agnostic=True)
    metric.dataset_meta = {"classes": ("text", "sign")}
    for part in (*truth["annotations"], *results):
        part["category_id"] = 3
    (tmp_path / "b.json").write_text(json.dumps(truth))
    expected = reference_scores(tmp_path / "b.json", results)
    for label, result in enumerate(results):  # whatever it is, of more classes than are labelled
        result["category_id"] = (3, 5)[label % 2]
    ours = run_metric(metric, results, [10, 20, 30])
    recalls = [ours.pop("coco/AR@20"), ours.pop("coco/box_AR@20")]
    assert ours == pytest.approx({f"coco/{name}": expected[name] for name in SCORE_NAMES}, abs=1e-12)
    assert all(0 < recall <= 1 for recall in recalls)


def test_image_ids_may_be_text_and_annotations_of_unknown_images_are_left_out(tmp_path):
    truth, results = random_case(4, detections=15)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    expected = run_metric(MaskAP(str(tmp_path / "a.json")), results, [10, 20, 30])
    for part in (*truth["annotations"], *results):
        part["image_id"] = f"image {part['image_id']}"
    for image in truth["images"]:
        image["id"] = f"image {image['id']}"
    for number, annotation in enumerate(truth["annotations"]):
        annotation["id"] = number  # 0, which to pycocotools is no object
    truth["annotations"].append({**truth["annotations"][0], "image_id": "of no image", "id": 99})
    (tmp_path / "b.json").write_text(json.dumps(truth))
    ours = run_metric(MaskAP(str(tmp_path / "b.json")), results, ["image 10", "image 20", "image 30"])
    assert ours == expected
