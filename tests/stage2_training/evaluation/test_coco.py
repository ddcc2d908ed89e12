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

from stage2_training.evaluation import AP_NAMES, MaskAP, mask_ap

SIZE = 128


def random_case(seed: int, detections: int) -> tuple[dict, list[dict]]:
    """COCO ground truth of three images and two classes, and noisy detections of it."""
    rng = np.random.default_rng(seed)
    images = [{"id": 10 * index, "height": SIZE, "width": SIZE, "file_name": ""} for index in range(1, 4)]
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
                }
            )
    categories = [{"id": 3, "name": "text"}, {"id": 5, "name": "sign"}, {"id": 9, "name": "unused"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def reference_ap(ann_file, results: list[dict]) -> dict[str, float]:
    """pycocotools, called as its documentation shows."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(ann_file)
        rles = [
            {
                **{k: v for k, v in result.items() if k != "mask"},
                "segmentation": coco_mask.encode(np.asfortranarray(result["mask"])),
            }
            for result in results
        ]
        evaluation = COCOeval(truth, truth.loadRes(rles), "segm")
        evaluation.params.catIds = [3, 5]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(AP_NAMES, evaluation.stats[:6], strict=True))


def run_metric(metric, results: list[dict], image_ids: list[int]) -> dict[str, float]:
    """Feed a metric one image at a time, as the test loop does."""
    metric.dataset_meta = {"classes": ("text", "sign")}
    for image_id in image_ids:
        own = [result for result in results if result["image_id"] == image_id]
        masks = np.array([result["mask"] for result in own]).reshape(-1, SIZE, SIZE).astype(bool)
        predicted = InstanceData(
            bboxes=tensor([[0.0, 0.0, 1.0, 1.0]] * len(own)).reshape(-1, 4),
            labels=tensor([(3, 5).index(result["category_id"]) for result in own]),
            scores=tensor([result["score"] for result in own]).double(),
            masks=tensor(masks),
        )
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
    expected = reference_ap(ann_file, results)
    assert 0 < expected["AP"] < 1
    ours = run_metric(MaskAP(ann_file), results, [10, 20, 30])
    assert ours == pytest.approx({f"coco/{name}": value for name, value in expected.items()}, abs=1e-12)
    theirs = run_metric(CocoMetric(ann_file, metric="segm", proposal_nums=(1, 10, 100)), results, [10, 20, 30])
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    assert [theirs[f"coco/segm_{name}"] for name in names] == pytest.approx(list(ours.values()), abs=5.1e-4)


def test_known_values(tmp_path):
    """Perfect detections of everything have AP 1, none have AP 0; sizes without objects have -1."""
    truth, _ = random_case(0, detections=0)
    truth["annotations"] = [annotation | {"category_id": 3, "area": 10**4} for annotation in truth["annotations"]]
    for number, annotation in enumerate(truth["annotations"]):  # disjoint, so that every detection is its own object's
        x, y = 20 * (number % 5), 0
        annotation["segmentation"] = [[x, y, x + 10, y, x + 10, y + 99, x, y + 99]]
    (tmp_path / "a.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "a.json"))
    perfect = [
        {"image_id": a["image_id"], "category_id": 3, "score": 0.5, "segmentation": coco.annToRLE(a)}
        for a in truth["annotations"]
    ]
    assert mask_ap(coco, perfect, [3]) == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1, "AP_S": -1, "AP_M": -1, "AP_L": 1}
    )
    assert mask_ap(coco, [], [3]) == {"AP": 0, "AP50": 0, "AP75": 0, "AP_S": -1, "AP_M": -1, "AP_L": 0}


def test_images_without_detections_count_as_missed(tmp_path):
    truth, results = random_case(1, detections=15)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    first = [result for result in results if result["image_id"] == 10]
    ours = run_metric(MaskAP(str(tmp_path / "a.json")), first, [10, 20, 30])
    assert ours["coco/AP"] == pytest.approx(reference_ap(str(tmp_path / "a.json"), first)["AP"], abs=1e-12)
    assert ours["coco/AP"] < run_metric(MaskAP(str(tmp_path / "a.json")), results, [10, 20, 30])["coco/AP"]
