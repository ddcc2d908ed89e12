"""Each data set, from the files as published to a step of fine-tuning and to its scores, on miniatures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATA_SAMPLERS, PARAM_SCHEDULERS, DefaultScope
from mmengine.utils import import_modules_from_strings
from pycocotools import mask as coco_mask

import stage2_training.engine.schedulers  # noqa: F401 (registers the schedules)
from stage1_proposals.common.errors import UserError
from stage2_training.config.annotation_files import check_annotations
from stage2_training.config.compose import CONFIGS, finetuning_config
from stage2_training.config.datasets import open_dataset
from stage2_training.config.overrides import Overrides
from stage2_training.labels import cityscapes, coco_subset, ctw1500
from stage2_training.labels.custom import CustomDatasetOptions
from stage2_training.runs.work_dir import WorkDir
from tests import miniatures, tiny_knet

TINY = (*tiny_knet.MODEL, *tiny_knet.TRAINING_IMAGES)


def coco10(folder: Path) -> str:
    coco_subset.write_subset(miniatures.coco(folder), "coco10", seed=0, partial=True)
    coco_subset.write_subset(folder, "coco5", seed=0, partial=True)
    return "coco10"


def converted(kind: Any, write: Callable[[Path], Path], splits: tuple[str, ...]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        for split in splits:
            kind.write_annotations(write(folder) if split == "train" else folder, split)
        return kind.__name__.rpartition(".")[2]

    return make


def own_coco(folder: Path) -> str:
    miniatures.coco(folder)
    for number in range(1, 13):  # images of both halves in the one folder that --data-root names
        (folder / "train2017" / f"{number:012d}.jpg").rename(folder / f"{number:012d}.jpg")
    return str(folder / "annotations" / "instances_train2017.json")


def own_labelme(folder: Path) -> str:
    return str(miniatures.labelme(folder))


MAKERS = {
    "coco10": coco10,
    "cityscapes": converted(cityscapes, miniatures.cityscapes, ("train", "val")),
    "ctw1500": converted(ctw1500, miniatures.ctw1500, ("train", "test")),
    "own COCO JSON": own_coco,
    "own labelme files": own_labelme,
}


def composed(dataset: str, folder: Path, options: CustomDatasetOptions | None = None) -> Config:
    overrides = Overrides(data_root=str(folder), total_batch=2, batch_size=2, workers=0, cfg_options=TINY)
    fragment = open_dataset(dataset, str(folder), options).fragment
    return finetuning_config("knet_lite0", fragment, "finetune_demo", overrides=overrides)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of the user's own are written below it."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_of_fine_tuning(name: str, tmp_path: Path) -> None:
    config = composed(MAKERS[name](tmp_path / "set"), tmp_path / "set")
    check_annotations(config, ["train", "val", "test"])
    torch.manual_seed(0)
    import_modules_from_strings(**config.custom_imports)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
        dataset = DATASETS.build(config.train_dataloader.dataset)
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert all(data["data_samples"].gt_instances.masks.masks.any() for data in dataset)  # no image without objects
    before = {key: value.clone() for key, value in model.named_parameters()}
    losses = model.train().train_step(pseudo_collate([dataset[0], dataset[len(dataset) - 1]]), wrapper)
    assert losses["loss"].isfinite()
    assert any(not torch.equal(value, before[key]) for key, value in model.named_parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_who_predicts_the_labels_scores_fully(name: str, tmp_path: Path) -> None:
    """Images, sizes, masks and classes of the test half are those that its metric judges by."""
    config = composed(MAKERS[name](tmp_path / "set"), tmp_path / "set")
    import_modules_from_strings(**config.custom_imports)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(config.val_dataloader.dataset)
        metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        labelled, sample = dataset.get_data_info(index), dataset[index]["data_samples"]
        instances = [one for one in labelled["instances"] if not one["ignore_flag"]]
        masks = [decode(one["mask"], sample.ori_shape) for one in instances]
        predicted = {
            "bboxes": torch.tensor([one["bbox"] for one in instances]).reshape(-1, 4),
            "labels": torch.tensor([one["bbox_label"] for one in instances], dtype=torch.long),
            "scores": torch.ones(len(instances)),
            "masks": torch.from_numpy(np.array(masks, bool).reshape(-1, *sample.ori_shape)),
        }
        metric.process(None, [{"img_id": sample.img_id, "pred_instances": predicted}])
    assert len(dataset) == len(json.loads(Path(config.val_evaluator.ann_file).read_text())["images"])
    assert metric.evaluate(len(dataset))["coco/AP"] == pytest.approx(1.0)


def decode(mask: Any, size: tuple[int, int]) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(mask, *size)) if isinstance(mask, list) else mask)


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_is_tied_to_its_labels(name: str, tmp_path: Path) -> None:
    dataset = MAKERS[name](tmp_path / "set")
    config = composed(dataset, tmp_path / "set")
    work = WorkDir(tmp_path / "run")
    work.create_or_verify(config)
    (work.path / "iter_1.pth").touch()
    (work.path / "last_checkpoint").write_text("iter_1.pth")
    work.create_or_verify(composed(dataset, tmp_path / "set"))
    changed = Path(config.val_evaluator.ann_file)
    if name == "own COCO JSON":
        changed = Path(dataset)
        changed.write_text(changed.read_text().replace("435.375", "435.5"))
    elif name == "own labelme files":
        miniatures.labelme_file(tmp_path / "set", 9, [])
    else:
        changed.write_text(changed.read_text().replace('"iscrowd"', ' "iscrowd"'))
    with pytest.raises(UserError, match=r"holds a run with other labels: labels\.(train|val) is '[0-9a-f]{16}' there"):
        work.create_or_verify(composed(dataset, tmp_path / "set"))


def test_another_half_held_out_is_another_run(tmp_path: Path) -> None:
    dataset = own_labelme(tmp_path / "set")
    first, again = (
        composed(dataset, tmp_path / "set", options=CustomDatasetOptions(held_out_seed=0)) for _ in range(2)
    )
    assert first.to_dict() == again.to_dict()
    other = composed(dataset, tmp_path / "set", options=CustomDatasetOptions(held_out_seed=1))
    assert other.labels != first.labels
    assert other.train_dataloader.dataset.ann_file != first.train_dataloader.dataset.ann_file


def test_choices_go_with_labels_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--test-labels, .* go with labels of your own, not ctw1500$"):
        open_dataset("ctw1500", options=CustomDatasetOptions(classes=("text",)))
    (tmp_path / "ctw1500").mkdir()  # the name of a fragment is that, whatever folders there are
    assert open_dataset("ctw1500", options=CustomDatasetOptions()).fragment["train_cfg"]["max_epochs"] == 96
    (tmp_path / "mine.py").write_text("import a, b")  # beside a folder of its name
    miniatures.labelme(tmp_path / "mine")
    assert open_dataset(str(tmp_path / "mine")).fragment["train_cfg"]["max_epochs"] == 48


def milestones_in_epochs(config: Config) -> list[int]:
    """After which epochs the learning rate drops, as MMEngine builds the schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = {"optimizer": optimizer, "epoch_length": 10, "end": config.train_cfg.max_epochs}
    schedule = PARAM_SCHEDULERS.build(config.param_scheduler[1], default_args=settings)
    return sorted(step // 10 for step in schedule.milestones)


@pytest.mark.parametrize(
    ("dataset", "model", "init", "epochs", "milestones"),
    [
        ("coco10", "knet", "sp", 48, [36, 44]),
        ("coco5", "knet", "imagenet", 48, [36, 44]),
        ("cityscapes", "mask2former", "sp", 24, [16, 22]),
        ("cityscapes", "mask_rcnn", "imagenet", 24, [16, 22]),
        ("ctw1500", "knet", "sp", 96, [72, 88]),
        ("ctw1500", "solov2", "imagenet", 96, [72, 88]),
        ("ctw1500", "mask_rcnn", "imagenet", 96, [72, 88]),
        ("ctw1500", "queryinst", "densecl", 80, [60, 73]),
        ("ctw1500", "queryinst", "pseudo", 80, [60, 73]),
        ("ctw1500", "queryinst", None, 80, [60, 73]),
        ("ctw1500", "queryinst", "sp", 20, [15, 18]),
        ("ctw1500", "mask2former", "swav", 80, [60, 73]),
        ("ctw1500", "mask2former_lite0", "sp", 20, [15, 18]),
        ("demo", "queryinst_lite0", "sp", 20, [15, 18]),
        ("demo", "queryinst_lite0", "imagenet", 20, [15, 18]),
    ],
)
def test_epochs_are_the_papers(dataset: str, model: str, init: str, epochs: int, milestones: list[int]) -> None:
    config = finetuning_config(model, dataset, init=init)
    assert config.train_cfg.max_epochs == epochs
    assert milestones_in_epochs(config) == milestones
    shorter = finetuning_config(model, dataset, init=init, overrides=Overrides(epochs=4))
    assert shorter.train_cfg.max_epochs == 4


def test_cityscapes_24_epochs_are_192_passes_over_its_images() -> None:
    """On a GPU; on a CPU, they are 24."""
    config = finetuning_config("knet", "cityscapes")
    sampler = DATA_SAMPLERS.build({**config.train_dataloader.sampler, "dataset": range(2975), "seed": 0})
    assert config.train_cfg.max_epochs * len(sampler) == 192 * 2975
    assert config.train_cfg.max_epochs * -(-len(sampler) // config.train_cfg.total_batch) == 5952  # steps
    for other in (
        finetuning_config("knet", "cityscapes", "finetune_cityscapes_cpu"),
        finetuning_config("knet", "coco10"),
        finetuning_config("knet", "ctw1500"),
    ):
        assert "repeats" not in other.train_dataloader.sampler


def test_cityscapes_images_are_as_large_as_mmdetections() -> None:
    config = finetuning_config("knet", "cityscapes")
    train, val = (config[f"{part}_dataloader"].dataset.pipeline for part in ("train", "val"))
    assert train[2] == {"type": "RandomResize", "scale": [(2048, 800), (2048, 1024)], "keep_ratio": True}
    assert val[1] == {"type": "Resize", "scale": (2048, 1024), "keep_ratio": True}
    plain = finetuning_config("knet", "cityscapes", "finetune").train_dataloader.dataset.pipeline
    assert [step for step in train if step != train[2]] == [step for step in plain if step != plain[2]]


def test_cityscapes_images_vary_in_size(tmp_path: Path) -> None:
    dataset = MAKERS["cityscapes"](tmp_path / "set")
    config = finetuning_config("knet", dataset, overrides=Overrides(data_root=str(tmp_path / "set")))
    import_modules_from_strings(**config.custom_imports)
    with DefaultScope.overwrite_default_scope("mmdet"):
        images = DATASETS.build(config.train_dataloader.dataset)
    np.random.seed(0)
    shorter = [min(images[index]["inputs"].shape[1:]) for index in range(3)]
    assert len(set(shorter)) == 3
    assert 800 <= min(shorter) <= max(shorter) <= 1024


def test_the_fragments_are_those_of_the_miniatures_and_the_classes_mmdetections() -> None:
    named = {file.stem for file in (CONFIGS / "datasets").glob("*.py")}
    assert named == {"cityscapes", "coco10", "coco5", "ctw1500", "demo", "pseudo_labels"}
    for name, kind in (("coco10", "CocoDataset"), ("coco5", "CocoDataset"), ("cityscapes", "CityscapesDataset")):
        config = finetuning_config("knet", name)
        known = DATASETS.get(kind).METAINFO
        for part in ("train", "val"):
            metainfo = config[f"{part}_dataloader"].dataset.metainfo
            assert tuple(metainfo.classes) == known["classes"]
            assert metainfo.get("palette", known["palette"]) == known["palette"]
    assert tuple(finetuning_config("knet", "cityscapes").train_dataloader.dataset.metainfo.classes) == (
        tuple(cityscapes.CLASSES.values())
    )
