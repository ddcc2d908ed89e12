"""Masks of a trained model as proposals: they are the model's own, and shards say of which model."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256, write_text
from stage1_proposals.common.masks import encode_masks, rle_objects
from stage1_proposals.common.system import choose_device
from stage1_proposals.generators.base import Batch, ImageInfo
from stage1_proposals.generators.registry import build_generator, describe_generator
from stage1_proposals.generators.seeds import pool_proposals
from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ImageRecord, ShardSet
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.inference import pseudo_masks
from stage2_training.inference.predictor import detect, load_detector
from stage2_training.runs.work_dir import WorkDir
from tests import tiny_knet
from tests.shard_sets import hashes, ignore, shard_files

MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two classes whose checkpoint holds random weights, with kernels that differ enough to be told apart."""
    choose_device("cpu")
    root = tmp_path_factory.mktemp("trained")
    image = {"id": 1, "file_name": "a.png", "height": 9, "width": 9}
    labels = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "text"}]}
    for split in ("train", "test"):
        write_text(root / f"annotations/{split}.json", json.dumps(labels))
    classes = ("model.roi_head.num_classes=2", "test_dataloader.dataset.metainfo.classes=(text,line)")
    small = (*tiny_knet.MODEL, *tiny_knet.TEST_IMAGES, *classes, "model.rpn_head.mask_stride=8")
    config = finetuning_config("knet_lite0", "demo", overrides=Overrides(data_root=str(root), cfg_options=small))
    tiny_knet.untrained_run(root / "run", config)
    checkpoint = torch.load(root / "run" / "iter_1.pth")
    kernels = checkpoint["state_dict"]["rpn_head.init_kernels.weight"]
    kernels.copy_(30 * torch.randn(kernels.shape, generator=torch.Generator().manual_seed(0)))
    torch.save(checkpoint, root / "run" / "iter_1.pth")
    return root / "run"


@pytest.fixture
def work_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to do harm to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def images(image_folder: Path) -> Path:
    """Six images, and a file that is none."""
    return image_folder / "0"


@pytest.fixture
def make_job(images: Path, work_dir: Path) -> MakeJob:
    """(settings of the generator) -> a job of seven files in shards of four."""

    def make(**settings: Any) -> Job:
        given = {"name": "checkpoint", "checkpoint": str(work_dir), "min_score": 0.0, **settings}
        sizes = JobSettings(images_per_shard=4, batch_size=3, short_side=64, long_side=128)
        return Job(list_images(images), Recipe(build_generator(given), "lite0_imagenet", None, "cpu", settings=sizes))

    return make


def records(directory: Path) -> list[ImageRecord]:
    return list(ShardSet.open(directory).records())


def test_masks_and_scores_are_the_models_own(make_job: MakeJob, images: Path, work_dir: Path, tmp_path: Path) -> None:
    """Best first, all classes as one, without those that another one covers."""
    run(make_job(nms_iou=0.8), tmp_path / "shards", 0, ignore)
    found = records(tmp_path / "shards")
    assert len(found) == 6
    config = WorkDir(work_dir).read_config()
    model, pipeline = load_detector(config, work_dir / "iter_1.pth"), config.test_dataloader.dataset.pipeline
    for record in found:
        own = detect(model, pipeline, images / record.file_name)
        assert len(set(own.labels.tolist())) == 2
        masks, scores = encode_masks(own.masks.numpy()), own.scores.numpy()
        stored = rle_objects(record.rle, (record.height, record.width))
        overlap = coco_mask.iou(stored, masks, [0] * len(masks))
        best = overlap.argmax(1)
        assert (overlap.max(1) == 1).all()
        np.testing.assert_allclose(record.score, [scores[overlap[row] == 1].max() for row in range(len(best))])
        assert (np.diff(record.score) <= 0).all()
        among = coco_mask.iou(stored, stored, [0] * len(stored)) - np.eye(len(stored))
        assert among.max(initial=0) <= 0.8
        # Each prediction that is not there is empty, or has too much in common with one that is better.
        for mask, score in zip(masks, scores, strict=True):
            better = [kept for kept, value in zip(stored, record.score, strict=True) if value >= score]
            assert not coco_mask.area(mask) or coco_mask.iou([mask], better, [0] * len(better)).max() > 0.8
    assert 6 < sum(map(len, found)) < 6 * 6


def test_low_scores_and_more_masks_than_asked_for_are_dropped(make_job: MakeJob, tmp_path: Path) -> None:
    run(make_job(nms_iou=1.0), tmp_path / "all", 0, ignore)
    everything = records(tmp_path / "all")
    least = float(np.median(np.concatenate([record.score for record in everything])))
    run(make_job(nms_iou=1.0, min_score=least, max_proposals=3), tmp_path / "some", 0, ignore)
    for some, every in zip(records(tmp_path / "some"), everything, strict=True):
        assert some.score.tolist() == [score for score in every.score.tolist() if score >= least][:3]
        assert some.rle == every.rle[: len(some)]
    assert sum(len(record) for record in records(tmp_path / "some")) > 0


def test_a_seed_is_the_mean_over_the_mask(make_job: MakeJob, images: Path) -> None:
    """Of stage 1's features, not of the model's own."""
    features = torch.rand(1, 5, 3, 2)
    size = read_image(images / "0000.png").shape[:2]
    (proposals,) = make_job().recipe.generator(Batch(features, [ImageInfo(1, "0000.png", size)], str(images)))
    expected = pool_proposals(features[0], proposals.rle, proposals.scores, size)
    np.testing.assert_array_equal(proposals.features, expected.features)
    np.testing.assert_array_equal(proposals.seeds, expected.seeds)
    assert len(proposals) > 0


def test_a_request_knows_the_checkpoint_by_its_content(make_job: MakeJob, work_dir: Path, tmp_path: Path) -> None:
    job = make_job()
    request = job.request()
    assert request.generator["sha256"] == file_sha256(work_dir / "iter_1.pth")
    assert describe_generator(request.generator) == "checkpoint checkpoint=run/iter_1.pth min_score=0.0"
    run(job, tmp_path / "shards", 0, ignore)
    # Elsewhere, and named by its file, it is the same. Trained on, it is another.
    work_dir = work_dir.rename(tmp_path / "moved")
    same = make_job(checkpoint=str(work_dir / "iter_1.pth"))
    assert request.differences(same.request()) == {}
    run(same, tmp_path / "shards", 0, ignore)
    weights = torch.load(work_dir / "iter_1.pth")
    weights["state_dict"]["rpn_head.conv_seg.bias"] += 1
    torch.save(weights, work_dir / "iter_2.pth")
    (work_dir / "last_checkpoint").write_text("iter_2.pth")
    other = make_job(checkpoint=str(work_dir))
    assert set(request.differences(other.request())) == {"generator.sha256"}
    former = re.escape(str(work_dir / "iter_1.pth"))
    message = rf"generator\.sha256 was .*, or go on with the checkpoint of before, if it is there: .* {former}$"
    with pytest.raises(UserError, match=message):
        run(other, tmp_path / "shards", 0, ignore)


def test_a_request_knows_at_which_size_the_model_sees_images(make_job: MakeJob, work_dir: Path) -> None:
    request = make_job().request()
    config = WorkDir(work_dir).read_config()
    config.test_dataloader.dataset.pipeline[1].scale = (96, 96)
    config.dump(work_dir / "config.py")
    assert set(request.differences(make_job().request())) == {"generator.config_sha256"}


def test_a_job_that_is_resumed_and_ray_workers_make_the_same_shards(make_job: MakeJob, tmp_path: Path) -> None:
    run(make_job(), tmp_path / "alone", 0, ignore)
    run(make_job(), tmp_path / "resumed", 0, ignore)
    kept, lost, *_ = shard_files(tmp_path / "resumed")
    lost.unlink()
    (tmp_path / "resumed" / "manifest.json").unlink()
    before = kept.stat().st_mtime_ns
    run(make_job(), tmp_path / "resumed", 1, ignore)
    assert kept.stat().st_mtime_ns == before
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "alone")


def test_workers_take_the_checkpoint_that_the_job_began_with(make_job: MakeJob, work_dir: Path) -> None:
    """Also where the run has gone on since; a file with other weights under the same name is refused."""
    generator = make_job().recipe.generator
    began = generator.parameters()
    sent = pickle.dumps(generator)
    assert len(sent) < 2000
    later = torch.load(work_dir / "iter_1.pth")
    torch.save({**later, "iteration": 2}, work_dir / "iter_2.pth")
    (work_dir / "last_checkpoint").write_text("iter_2.pth")
    assert pickle.loads(sent).parameters() == began
    (work_dir / "iter_2.pth").replace(work_dir / "iter_1.pth")
    with pytest.raises(UserError, match=r"iter_1\.pth: has changed since the job began"):
        pickle.loads(sent).parameters()


def test_masks_of_a_large_image_are_enlarged(
    make_job: MakeJob, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_masks, "MASK_PIXELS", 48 * 48)
    run(make_job(), tmp_path / "shards", 0, ignore)
    shapes = []
    monkeypatch.setattr(
        "stage2_training.inference.predictor.detect",
        lambda model, pipeline, pixels: shapes.append(pixels.shape) or detect(model, pipeline, pixels),
    )
    for record in records(tmp_path / "shards"):
        size = record.height, record.width
        assert record.masks().shape[1:] == size
        (proposals,) = make_job().recipe.generator(
            Batch(torch.ones(1, 3, 2, 2), [ImageInfo(1, record.file_name, size)], str(images))
        )
        assert list(proposals.rle) == record.rle
        height, width, _ = shapes[-1]
        assert abs(height * width - 48 * 48) <= 48
        assert abs(width / height - record.width / record.height) < 0.05
    assert len(shapes) == 6


def test_an_image_that_is_gone_meanwhile_is_a_failure(make_job: MakeJob, tmp_path: Path) -> None:
    batch = Batch(torch.ones(1, 3, 2, 2), [ImageInfo(1, "gone.png", (30, 40))], str(tmp_path))
    (failure,) = make_job().recipe.generator(batch)
    assert isinstance(failure, ImageError)
    assert str(failure) == "does not exist"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"^generator checkpoint needs a trained model: --checkpoint \(CHECKPOINT=\) names the work directory"),
        ("{tmp}/gone", "^{tmp}/gone: no such checkpoint$"),
        ("{tmp}/empty", r"^{tmp}/empty: no run here \(no config.py\)$"),
        ("{tmp}/begun", "^{tmp}/begun: has no checkpoint yet$"),
        ("{tmp}/lone.pth", r"^{tmp}/lone\.pth: there is no config\.py beside it, .*; name the work directory of a run"),
    ],
)
def test_what_is_no_run_and_no_checkpoint_in_one_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.py").touch()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "lone.pth")
    with pytest.raises(UserError, match=message.replace("{tmp}", str(tmp_path))):
        build_generator({"name": "checkpoint", "checkpoint": source.replace("{tmp}", str(tmp_path))})


def test_a_file_that_is_no_checkpoint_of_the_run_is_refused_before_any_work(
    make_job: MakeJob, work_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"config\.py: damaged or not a PyTorch checkpoint"):
        run(make_job(checkpoint=str(work_dir / "config.py")), tmp_path / "shards", 1, ignore)
    torch.save({"weight": torch.zeros(1)}, work_dir / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not a checkpoint of this model"):
        run(make_job(checkpoint=str(work_dir / "other.pth")), tmp_path / "shards", 1, ignore)
    assert not (tmp_path / "shards").exists()


def test_the_settings_are_looked_up_without_importing_mmdetection() -> None:
    """As for the table of `make recall`, and by other generators."""
    parameters = {"name": "checkpoint", "checkpoint": "a/b/iter_9.pth", "nms_iou": 0.5, "sha256": "ab"}
    code = (
        "import sys; from stage1_proposals.generators.registry import describe_generator;"
        f"print(describe_generator({parameters}));"
        "print(sorted({'mmdet', 'mmcv', 'mmengine'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["checkpoint checkpoint=b/iter_9.pth", "[]"]


def test_predictions_are_those_of_the_pixels_alone(make_job: MakeJob, images: Path) -> None:
    """The features of stage 1, and the other images of a batch, change no mask."""
    generator = make_job().recipe.generator
    infos = [
        ImageInfo(number, name, read_image(images / name).shape[:2])
        for number, name in enumerate(("0000.png", "0002.png"))
    ]
    together = generator(Batch(torch.rand(2, 3, 2, 2), infos, str(images)))
    for info, proposals in zip(infos, together, strict=True):
        (alone,) = replace(generator)(Batch(torch.rand(1, 3, 2, 2), [info], str(images)))
        assert list(alone.rle) == list(proposals.rle)
        assert alone.scores.tolist() == proposals.scores.tolist()
