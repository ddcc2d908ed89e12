"""Queries and image sizes follow from the data's objects, and the user's choice wins."""

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config, pretraining_config
from stage2_training.config.objects import describe_objects, query_count
from stage2_training.config.run_settings import Overrides
from tests.labelled_sets import labelled_dataset


@pytest.fixture
def labelled(tmp_path: Path) -> Any:
    """(objects of each image, their area) -> a dataset's config, of images of 256 x 192."""

    def write(counts: list[int], area: int) -> dict[str, Any]:
        annotations = [
            {"image_id": image, "category_id": 1, "area": area, "iscrowd": 0}
            for image, count in enumerate(counts)
            for _ in range(count)
        ]
        annotations.append({"image_id": 0, "category_id": 2, "area": 1, "iscrowd": 0})  # of a class that is not used
        images = [{"id": image, "width": 256, "height": 192} for image in range(len(counts))]
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        labels = tmp_path / "labels.json"
        labels.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return labelled_dataset(labels, ("a",))

    return write


def sizes(config: Config) -> list[Any]:
    loaders = (config[f"{part}_dataloader"].dataset.pipeline for part in ("train", "val", "test"))
    return [next(step.scale for step in pipeline if step["type"] == "Resize") for pipeline in loaders]


@pytest.mark.parametrize(
    ("model", "detections"),
    [
        ("knet_lite0", lambda test: test.get("max_per_img", 100)),
        ("queryinst_lite0", lambda test: test.rcnn.max_per_img),
        ("mask2former_lite0", lambda test: test.max_per_image),
        ("mask_rcnn_lite0", lambda test: test.rcnn.max_per_img),
    ],
)
def test_a_model_has_more_queries_than_an_image_has_objects(labelled: Any, model: str, detections: Any) -> None:
    has_queries = model != "mask_rcnn_lite0"
    few = finetuning_config(model, labelled([3, 40, 7], 900), "finetune_demo")
    assert query_count(few) == (50 if has_queries else None)
    assert sizes(few) == [(256, 256)] * 3
    whole = Overrides(tiles="off")
    many = finetuning_config(model, labelled([3, 203, 7], 900), "finetune_demo", overrides=whole)
    assert query_count(many) == (250 if has_queries else None)  # 1.25 x 200
    assert detections(many.model.get("test_cfg") or {}) == 250
    assert ("250 queries" in describe_objects(many)) == has_queries
    if has_queries:
        given = finetuning_config(model, labelled([203], 900), "finetune_demo", overrides=Overrides(queries=120))
        assert query_count(given) == 120
    else:
        with pytest.raises(UserError, match=r"^--queries 120: MaskRCNN has no queries; leave"):
            finetuning_config(model, labelled([203], 900), "finetune_demo", overrides=Overrides(queries=120))


def transforms(config: Config, part: str = "train") -> list[str]:
    return [step["type"] for step in config[f"{part}_dataloader"].dataset.pipeline]


@pytest.mark.parametrize(
    ("counts", "area", "tile", "size", "queries"),
    [
        ([80], 64, None, 256, 100),
        ([3, 40, 7], 63, 128, 256, 50),  # a quarter are smaller than 8 x 8 pixels
        ([3, 203, 7], 100, 85, 170, 100),  # up to 200 in an image, of which a tile shows (85 + 10)^2 / (256 x 192)
        ([3, 120, 7], 100, 128, 256, 100),
        ([2000], 900, 64, 128, 750),  # no smaller tiles than a quarter of the side
        ([5], 9, 128, 256, 50),  # tiles are enlarged twice at most, so smaller ones would show nothing more
    ],
)
def test_many_or_small_objects_are_seen_in_tiles(
    labelled: Any, counts: list[int], area: int, tile: int | None, size: int, queries: int
) -> None:
    auto = Overrides(tiles="auto")
    config = finetuning_config("knet_lite0", labelled(counts, area), "finetune_demo", overrides=auto)
    assert (config.get("tiles"), query_count(config), sizes(config)) == (tile, queries, [(size, size)] * 3)
    assert ("RandomTile" in transforms(config)) == bool(tile)
    assert "RandomTile" not in transforms(config, "test")
    loops = [config.val_cfg.to_dict(), config.test_cfg.to_dict()]
    if tile:
        assert loops == [{"type": "TiledValLoop", "side": tile}, {"type": "TiledTestLoop", "side": tile}]
        assert f"tiles of {tile} x {tile} pixels of the image, as images up to {size}" in describe_objects(config)
    else:
        assert loops == [{"type": "ValLoop"}, {"type": "TestLoop"}]
        assert describe_objects(config).startswith("Up to 80 objects an image: 100 queries; images up to 256 x 256")


def test_tiles_that_would_show_objects_no_larger_are_not_taken(labelled: Any) -> None:
    """On a CPU, images of 256 pixels are enlarged twice already."""
    config = finetuning_config("knet_lite0", labelled([5], 9), "finetune_cpu", overrides=Overrides(tiles="auto"))
    assert (config.get("tiles"), sizes(config)) == (None, [(512, 512)] * 3)


def test_the_papers_datasets_are_seen_whole_unless_tiles_are_asked_for(labelled: Any) -> None:
    """They state their length; labels of a user's own do not."""
    assert finetuning_config("knet_lite0", labelled([203], 100), "finetune_demo").get("tiles") is None
    own = {**labelled([203], 100), "length_by_images": True}
    assert finetuning_config("knet_lite0", own, "finetune_demo").tiles == 85
    given = finetuning_config("knet_lite0", own, "finetune_demo", overrides=Overrides(queries=300))
    assert given.get("tiles") is None  # enough queries for whole images


def test_tiles_of_few_images_are_resized_at_random(labelled: Any) -> None:
    """The augmentation of few labelled images keeps its share of the size, which is that of tiles."""
    dataset = {**labelled([5], 900), "length_by_images": True}
    config = finetuning_config("knet_lite0", dataset, "finetune_demo", overrides=Overrides(tiles="64"))
    (resize,) = (step for step in config.train_dataloader.dataset.pipeline if "scale" in step)
    assert (resize.type, resize.scale, resize.ratio_range) == ("RandomResize", (128, 128), (0.6, 1.0))


def test_tiles_are_the_users_choice(labelled: Any) -> None:
    """Those given are taken; with a size of the images, none are chosen."""
    given = finetuning_config("knet_lite0", labelled([5], 900), "finetune_demo", overrides=Overrides(tiles="64"))
    assert (given.tiles, sizes(given)) == (64, [(128, 128)] * 3)
    both = Overrides(tiles="64", image_size=96)
    given = finetuning_config("knet_lite0", labelled([203], 9), "finetune_demo", overrides=both)
    assert (given.tiles, sizes(given)) == (64, [(96, 96)] * 3)
    for whole in (Overrides(image_size=192), Overrides(tiles="off")):
        config = finetuning_config("knet_lite0", labelled([5], 9), "finetune_demo", overrides=whole)
        assert config.get("tiles") is None
        assert transforms(config).count("RandomTile") == 0
    everything = Overrides(tiles="64", image_size=96, queries=7)
    assert finetuning_config("knet_lite0", labelled([5], 9), "finetune_demo", overrides=everything).tiles == 64
    for wrong in ("31", "-64", "many", ""):
        with pytest.raises(UserError, match=rf"^--tiles '{wrong}': use auto, off or the side of a tile, 32 pixels"):
            Overrides(tiles=wrong)


def test_models_of_boxes_alone_see_whole_images(labelled: Any) -> None:
    """Tiles are joined by masks."""
    config = finetuning_config("detr_lite0", labelled([203], 900), "finetune_demo")
    assert config.get("tiles") is None
    assert query_count(config) == 300
    with pytest.raises(UserError, match=r"^--tiles 64: DETR finds boxes, and tiles are joined by masks; use off"):
        finetuning_config("detr_lite0", labelled([203], 900), "finetune_demo", overrides=Overrides(tiles="64"))


def test_an_explicit_setting_wins(labelled: Any) -> None:
    options = ["model.rpn_head.num_kernels=6", "train_dataloader.dataset.pipeline.2.scale=(64,64)"]
    config = finetuning_config(
        "knet_lite0", labelled([203], 9), "finetune_demo", overrides=Overrides(cfg_options=options)
    )
    assert query_count(config) == 6
    assert sizes(config)[0] == (64, 64)


@pytest.mark.parametrize(("count", "queries"), [(20, 50), (80, 100)])
def test_pretraining_follows_the_proposals(
    count: int, queries: int, write_shards: Any, make_record: Any, rectangles: Any
) -> None:
    masks = rectangles([(y, x, y + 12, x + 12) for y in range(12) for x in range(12)][:count], 64, 64)
    shards = write_shards([[make_record(1, "a.png", masks, [[0.0] * 320] * count)]], backbone={"feature_dim": 320})
    config = pretraining_config("knet_lite0", "pretrain_demo", shards)
    assert query_count(config) == queries
    assert config.objects == {"per_image": count, "side": 48.0}
    assert config.train_dataloader.dataset.pipeline[2].scale == (256, 256)


def test_proposals_that_are_not_trained_on_do_not_count(write_shards: Any, make_record: Any, rectangles: Any) -> None:
    """UP-DETR's default is 10 boxes of an image, whose queries are no more for shards that hold more."""
    masks = rectangles([(y, x, y + 12, x + 12) for y in range(12) for x in range(12)][:100], 64, 64)
    shards = write_shards([[make_record(1, "a.png", masks, [[0.0] * 320] * 100)]], backbone={"feature_dim": 320})
    config = pretraining_config("detr_lite0", "pretrain_demo", shards)
    assert query_count(config) == 50
    assert describe_objects(config).startswith("Up to 10 objects an image: 50 queries")
    options = Overrides(cfg_options=["train_dataloader.dataset.max_proposals=30"])
    assert pretraining_config("detr_lite0", "pretrain_demo", shards, overrides=options).objects.per_image == 30
