"""`make predict`: images in, label files, masks and pictures out, with an untrained K-Net."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from pipelines import prediction_job
from pipelines.predict import FORMATS
from stage1_proposals.common.coco_scores import MAX_DETECTIONS
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.inference.result_files import RESULT_WRITERS
from stage2_training.labels.coco import convert_coco
from stage2_training.labels.labelme import convert_labelme
from tests import tiny_knet
from tests.pipelines.command import run_command


@pytest.fixture
def run_dir(tmp_path: Path, write_labels: Callable) -> Path:
    """A fine-tuning run that has done no step; its six test images of 48 x 80 pixels are in labelled/."""
    small = (*tiny_knet.MODEL, *tiny_knet.TEST_IMAGES)
    overrides = Overrides(data_root=str(write_labels(images=6, size=(48, 80))), workers=0, cfg_options=small)
    config = finetuning_config("knet_lite0", "demo", overrides=overrides)
    return tiny_knet.untrained_run(tmp_path / "run", config)


@pytest.fixture
def predict(run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Predict the test images, or `--images`, in this process: the exit code, and what was printed."""

    def run(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        common = ["--images", tmp_path / "labelled" / "test", "--out", tmp_path / "out", "--device", "cpu"]
        common += ["--work-dir", run_dir, "--workers", 0, "--score", 0]
        code = run_command("predict", *common, *words)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two images."""
    from stage1_proposals.jobs import request

    monkeypatch.setattr(request, "default_shard_size", lambda images: 2)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_formats_are_those_that_can_be_written() -> None:
    assert set(FORMATS) == set(RESULT_WRITERS)


def test_coco_results_have_the_ap_that_evaluate_prints(predict: Callable, run_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labelled" / "annotations" / "test.json"
    assert predict("--images", labels, "--format", "coco", "--out", tmp_path / "first")[0] == 0
    found = json.loads((tmp_path / "first" / "coco.json").read_text())
    assert [image["id"] for image in found["images"]] == [1, 2, 3, 4, 5, 6]
    # What an untrained model finds is the labels, but for each third object: AP is neither 0 nor 1. Ids are others.
    kept = [one for number, one in enumerate(found["annotations"]) if number % 3 and one["area"]]
    document = json.loads(labels.read_text())
    document |= {"annotations": [{**one, "category_id": 7} for one in kept], "categories": [{"id": 7, "name": "text"}]}
    labels.write_text(json.dumps(document))

    assert run_command("evaluate", "--work-dir", run_dir, "--device", "cpu", "--workers", 0) == 0
    expected = json.loads((run_dir / "metrics.json").read_text())
    assert 0.1 < expected["AP"] < 0.9
    code, printed = predict("--images", labels, "--format", "coco")
    assert code == 0, printed
    truth, guess = COCO(str(labels)), COCO(str(tmp_path / "out" / "coco.json"))
    assert guess.dataset["categories"] == [{"id": 7, "name": "text"}]
    for kind, prefix in (("segm", ""), ("bbox", "box_")):
        evaluation = COCOeval_faster(truth, guess, kind)
        evaluation.params.maxDets = [1, *MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert [expected[f"{prefix}{name}"] for name in ("AP", "AP50", "AP75")] == evaluation.stats[:3].tolist()


def test_every_format_has_each_image(predict: Callable, tmp_path: Path) -> None:
    code, printed = predict("--format", ",".join(FORMATS))
    assert code == 0, printed
    out = tmp_path / "out"
    assert f"{out}: 36 objects in 6 images as coco, labelme, yolo, masks, pictures, 0 images failed" in printed
    names = [str(number) for number in range(1, 7)]
    for folder, suffix in (("labelme", ".json"), ("yolo/labels", ".txt"), ("masks", ".png"), ("pictures", ".jpg")):
        assert sorted(path.stem for path in (out / folder).glob(f"*{suffix}")) == names
    annotations = json.loads((out / "coco.json").read_text())["annotations"]
    lines = (out / "masks" / "objects.csv").read_text().splitlines()
    assert lines[0] == "image,object,class,score,pixels"
    assert [int(line.split(",")[-1]) for line in lines[1:]] == [one["area"] for one in annotations]
    coco = COCO(str(out / "coco.json"))
    first = coco.imgs[coco.getImgIds()[0]]
    numbers = np.asarray(Image.open(out / "masks" / "1.png"))
    stacked = np.zeros((48, 80), int)
    for number, one in reversed(list(enumerate(coco.loadAnns(coco.getAnnIds(first["id"])), 1))):
        stacked[coco.annToMask(one) == 1] = number
    assert np.array_equal(numbers, stacked)
    assert Image.open(out / "pictures" / "1.jpg").size == (640, 384)


def test_labelme_files_read_back_are_the_same_objects(predict: Callable, tmp_path: Path) -> None:
    assert predict("--format", "coco,labelme")[0] == 0
    expected = COCO(str(tmp_path / "out" / "coco.json"))
    converted = convert_labelme(tmp_path / "out" / "labelme", tmp_path / "labelled" / "test").coco
    found = COCO()
    found.dataset = {
        **converted,
        "annotations": [{**one, "id": number} for number, one in enumerate(converted["annotations"], 1)],
    }
    found.createIndex()
    assert found.getImgIds() == expected.getImgIds()
    for image in expected.getImgIds():
        objects = [one for one in expected.loadAnns(expected.getAnnIds(image)) if one["area"]]
        read = found.loadAnns(found.getAnnIds(image))
        assert len(read) == len(objects)
        for one, other in zip(objects, read, strict=True):
            mask, same = expected.annToMask(one).astype(bool), found.annToMask(other).astype(bool)
            assert (mask & same).sum() >= 0.98 * (mask | same).sum()


@pytest.mark.usefixtures("small_blocks")
def test_finished_blocks_are_kept_and_the_others_made(
    predict: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = ("--format", ",".join(FORMATS))
    assert predict(*everything)[0] == 0
    expected = content(tmp_path / "out")
    blocks = sorted((tmp_path / "out" / "predictions").glob("block-*.jsonl"))
    assert [path.name for path in blocks] == [f"block-0000{number}-of-00003.jsonl" for number in range(3)]
    blocks[1].unlink()
    (tmp_path / "out" / "predictions" / ".block-00001.tmp").write_text("half")
    (tmp_path / "out" / "coco.json").unlink()
    (tmp_path / "out" / "pictures" / "5.jpg").unlink()
    seen: list[str] = []
    read = prediction_job.BlockBuilder._labels
    monkeypatch.setattr(
        prediction_job.BlockBuilder, "_labels", lambda self, name, *more: seen.append(name) or read(self, name, *more)
    )
    code, printed = predict(*everything)
    assert code == 0, printed
    assert seen == ["3.png", "4.png"]
    assert content(tmp_path / "out") == expected
    assert not (tmp_path / "out" / "predictions" / ".block-00001.tmp").exists()
    assert "2 files written" in printed


def test_images_that_cannot_be_read_are_told_and_read_again_when_asked(predict: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "labelled" / "test"
    good = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(good[:100])
    code, printed = predict("--format", "labelme")
    assert code == 0
    assert "in 5 images as labelme, 1 images failed" in printed
    assert "  failed: '2.png': " in printed
    assert (tmp_path / "out" / "failed.txt").read_text().startswith("'2.png': ")
    assert not (tmp_path / "out" / "labelme" / "2.json").exists()
    (folder / "2.png").write_bytes(good)
    assert "1 images failed" in predict("--format", "labelme")[1]
    assert "in 6 images as labelme, 0 images failed" in predict("--format", "labelme", "--retry-failed")[1]
    assert (tmp_path / "out" / "labelme" / "2.json").is_file()
    assert (tmp_path / "out" / "failed.txt").read_text() == ""


def test_masks_are_of_the_image_as_displayed(predict: Callable, tmp_path: Path) -> None:
    (tmp_path / "phone").mkdir()
    with Image.open(tmp_path / "labelled" / "test" / "1.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "phone" / "1.png", exif=exif)
    assert predict("--images", tmp_path / "phone", "--format", "labelme,masks")[0] == 0
    document = json.loads((tmp_path / "out" / "labelme" / "1.json").read_text())
    assert (document["imageHeight"], document["imageWidth"]) == (80, 48)
    assert Image.open(tmp_path / "out" / "masks" / "1.png").size == (48, 80)


def test_corrected_labels_stay(predict: Callable, tmp_path: Path) -> None:
    assert predict("--format", "labelme")[0] == 0
    path = tmp_path / "out" / "labelme" / "3.json"
    path.write_text("corrected")
    code, printed = predict("--format", "labelme")
    assert code == 0
    assert f"1 files that hold something else stay as they are, {path} first" in printed
    assert path.read_text() == "corrected"


def test_two_images_with_one_label_file_are_told_before_anything_is_found(predict: Callable, tmp_path: Path) -> None:
    with Image.open(tmp_path / "labelled" / "test" / "1.png") as image:
        image.save(tmp_path / "labelled" / "test" / "1.jpg")
    code, printed = predict("--format", "coco,masks")
    assert code == 2
    assert printed.splitlines()[-1] == (
        f"error: {tmp_path}/out/1.*: would hold the labels of '1.jpg' and of '1.png'; rename one of the images"
    )
    assert not (tmp_path / "out").exists()
    assert predict("--format", "coco")[0] == 0
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 7


def test_where_nothing_is_found_a_lower_score_is_recommended(predict: Callable) -> None:
    code, printed = predict("--format", "coco", "--score", 1)
    assert code == 0
    assert "no object has a score of 1 or more; a lower SCORE, with another OUT, finds more" in printed


def test_coco_json_can_be_trained_on(
    predict: Callable, tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects have pixels, unless all that the detector finds is asked for."""
    from stage2_training.inference import predictor

    detect = predictor.detect

    def first_without_pixels(*given: object) -> object:
        found = detect(*given)
        found.masks[0] = False
        return found

    monkeypatch.setattr(predictor, "detect", first_without_pixels)
    areas = []
    for score in (0, 1e-6):
        out = tmp_path / str(score)
        assert predict("--format", "coco", "--score", score, "--out", out)[0] == 0
        areas.append([one["area"] for one in json.loads((out / "coco.json").read_text())["annotations"]])
    assert areas[0].count(0) >= 6
    assert areas[1] == [area for area in areas[0] if area]
    coco = convert_coco(tmp_path / "1e-06" / "coco.json", tmp_path / "labelled" / "test").coco
    assert len(coco["annotations"]) == len(areas[1]) > 0


def test_large_images_in_tiles(predict: Callable, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    Image.new("RGB", (240, 200)).save(tmp_path / "large" / "1.png")
    large = ("--images", tmp_path / "large", "--format", "coco")
    code, printed = predict(*large)
    assert code == 0
    assert "1 images are much larger than those of training, 80 pixels: TILES=auto finds more in them" in printed
    whole = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    code, printed = predict(*large, "--tiles", "auto", "--out", tmp_path / "tiled")
    assert code == 0
    assert "in tiles of 80 pixels" in printed
    assert "TILES=auto" not in printed
    tiled = json.loads((tmp_path / "tiled" / "coco.json").read_text())["annotations"]
    assert tiled != whole
    assert {tuple(one["segmentation"]["size"]) for one in tiled} == {(200, 240)}


def test_ray_workers_find_the_same(predict: Callable, tmp_path: Path) -> None:
    assert predict("--format", "coco")[0] == 0
    code, printed = predict("--format", "coco", "--workers", 1, "--out", tmp_path / "ray")
    assert code == 0, printed
    assert content(tmp_path / "ray") == content(tmp_path / "out")


def test_another_request_for_the_same_folder_is_refused(predict: Callable, run_dir: Path, tmp_path: Path) -> None:
    assert predict("--format", "coco")[0] == 0
    code, printed = predict("--format", "coco", "--score", 0.5)
    assert (code, len(printed.splitlines())) == (2, 2)
    assert "predictions holds what was found otherwise: score was 0.0, requested 0.5; choose another OUT" in printed
    (tmp_path / "out" / "predictions" / "request.json").write_text("[1]")
    code, printed = predict("--format", "coco")
    assert code == 2
    assert "request.json: is damaged; remove the folder" in printed.splitlines()[-1]


def test_a_checkpoint_is_taken_with_the_run_beside_it(predict: Callable, run_dir: Path, tmp_path: Path) -> None:
    assert predict("--format", "coco")[0] == 0
    out = ["--images", tmp_path / "labelled" / "test", "--workers", 0, "--score", 0, "--device", "cpu"]
    out += ["--format", "coco", "--out", tmp_path / "other"]
    assert run_command("predict", *out, "--checkpoint", run_dir / "iter_1.pth") == 0
    assert content(tmp_path / "other") == content(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--work-dir", "{tmp}/none"], "{tmp}/none: no run here (no config.py)"),
        (["--images", "{tmp}/none"], "image folder {tmp}/none: no such folder, nor a JSON or a list of images"),
        (["--out", "{tmp}/labelled/test/out"], "--out {tmp}/labelled/test/out: the output cannot lie among the images"),
        (["--tiles", "5"], "--tiles '5': use auto, off or the side of a tile, 32 pixels or more"),
        (["--format", "voc"], "Invalid value for '--format': 'voc' is not one of 'coco', 'labelme', 'yolo', 'masks',"),
        (["--checkpoint", "{tmp}/none.pth"], "{tmp}/none.pth: no such checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    predict: Callable, tmp_path: Path, options: list[str], message: str
) -> None:
    code, printed = predict(*(option.replace("{tmp}", str(tmp_path)) for option in options))
    assert code == 2
    assert printed.splitlines()[-1].startswith("error: " + message.replace("{tmp}", str(tmp_path)))


def test_what_to_predict_with_must_be_named(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    images = ["--images", tmp_path]
    assert run_command("predict", *images) == 2
    assert (
        "nothing to predict with: pass --work-dir (WORK_DIR=) or --checkpoint (CHECKPOINT=)" in capfd.readouterr().err
    )
    (tmp_path / "a.pth").touch()
    assert run_command("predict", *images, "--checkpoint", tmp_path / "a.pth") == 2
    assert f"{tmp_path}/a.pth: no config.py beside it" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["a.pth"]
