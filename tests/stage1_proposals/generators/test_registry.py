"""Generators by name: built from settings, or refused; and the configs of settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.generators.base import ProposalGenerator
from stage1_proposals.generators.coco_import import ImportGenerator
from stage1_proposals.generators.merging import MergingGenerator
from stage1_proposals.generators.random_shapes import RandomGenerator
from stage1_proposals.generators.registry import CONFIGS, build_generator, describe_generator, read_settings
from stage1_proposals.generators.saliency import SaliencyGenerator


def test_parameters_make_an_equal_generator_through_json() -> None:
    for settings in (
        {"name": "saliency", "nms": "matrix", "seed_grid": [3, 4], "seed_scales": [1, 0.5]},
        {"name": "saliency", "min_score": 0.5},
        {"name": "saliency", "component": "seed", "pooling": "bilinear"},
        {"name": "merging", "max_proposals": 100},
        {"name": "merging", "edges": "cells"},
        {"name": "random", "seed": 3, "shapes": ["ellipse"]},
    ):
        generator = build_generator(settings)
        assert build_generator(json.loads(json.dumps(generator.parameters()))) == generator


def test_a_users_own_generator_is_named_by_its_module() -> None:
    generator = build_generator({"name": "stage1_proposals.generators.random_shapes:RandomGenerator", "seed": 5})
    assert isinstance(generator, RandomGenerator)
    assert generator.seed == 5


@pytest.mark.parametrize(
    "name", ["no_such_module:Generator", "stage1_proposals.generators.registry:NoSuch", ":X", ".a:X"]
)
def test_a_users_generator_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"generator {name}: cannot be imported"):
        build_generator({"name": name})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "magic"}, "no generator 'magic'; there are saliency"),
        ({"treshold": 0.5}, "no setting treshold; it has .*threshold"),
        ({"similarity": "l2"}, "generator saliency: similarity 'l2': must be 'cosine' or 'dot'"),
        ({"component": "one"}, "component 'one': must be 'all' or 'seed'"),
        ({"name": "merging", "max_area": 0}, "generator merging: max_area 0: must be greater than 0"),
        ({"nms": "soft"}, "nms 'soft': must be 'greedy' or 'matrix'"),
        ({"threshold": 1.0}, "threshold 1.0: must be less than 1"),
        ({"threshold": "high"}, "threshold 'high': must be a number"),
        ({"nms_iou": 1.5}, "nms_iou 1.5: must be less than or equal to 1"),
        ({"nms_sigma": 0}, "nms_sigma 0: must be greater than 0"),
        ({"nms_sigma": 0, "nms_iou": 2}, "nms_iou 2: must be less than or equal to 1; nms_sigma 0: must be"),
        ({"threshold": float("nan")}, "threshold nan: must be"),
        ({"min_score": -0.1}, "min_score"),
        ({"max_width": 20}, "max_width"),
        ({"top_margin": 2}, "top_margin"),
        ({"max_proposals": 0}, "max_proposals 0: must be greater than 0"),
        ({"max_proposals": 2.5}, "max_proposals 2.5: must be a whole number"),
        ({"min_cells": "1"}, "min_cells '1': must be a whole number"),
        ({"seed_scales": []}, r"seed_scales \[\]: has 0 values; it must have at least 1"),
        ({"seed_scales": [1.0, 0.0]}, r"seed_scales \[1.0, 0.0\]: must be greater than 0"),
        ({"seed_scales": 0.5}, "seed_scales 0.5: must be a list"),
        ({"seed_grid": [7]}, r"seed_grid \[7\]: has too few values"),
        ({"seed_grid": [0, 7]}, r"seed_grid \[0, 7\]: must be greater than 0"),
        ({"seed_grid": 7}, "seed_grid 7: must be a list"),
        ({"name": "random", "count": 0}, "generator random: count 0: must be greater than 0"),
        ({"name": "random", "seed": -1}, "seed -1: must be greater than or equal to 0"),
        ({"name": "random", "shapes": ["star"]}, r"shapes \['star'\]: must be 'rectangle' or 'ellipse'"),
        ({"name": "random", "min_side": 0.8}, "^generator random: min_side 0.8, max_side 0.7: use 0 < min_side"),
        ({"name": "import"}, "needs a COCO-format JSON"),
        ({"name": "import", "file": __file__, "min_score": "high"}, "min_score 'high': must be a number"),
        ({"name": "pathlib:Path"}, "generator pathlib:Path: must be a dataclass"),
        ({"name": "import", "file": "nowhere.json"}, "nowhere.json: no such file"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_generator(settings)


def test_a_settings_default_is_not_worth_a_word() -> None:
    assert (
        describe_generator(json.loads(json.dumps(build_generator({}).parameters())) | {"short_side": 64}) == "saliency"
    )
    changed = build_generator({"name": "saliency", "seed_grid": [3, 4], "min_score": 0.5}).parameters()
    assert describe_generator(json.loads(json.dumps(changed))) == "saliency seed_grid=[3, 4] min_score=0.5"
    cells = build_generator({"name": "merging", "edges": "cells"}).parameters()
    assert describe_generator(json.loads(json.dumps(cells))) == "merging edges=cells"
    assert describe_generator({"name": "my_module:Mine", "parts": 3, "short_side": 800, "long_side": 1333}) == (
        "my_module:Mine parts=3"
    )


def test_set_values_are_toml_or_bare_words() -> None:
    overrides = ("threshold=0.6", "nms=matrix", "seed_grid=[3, 4]", 'similarity="dot"')
    generator = read_settings(None, None, overrides)["generator"]
    assert (generator["threshold"], generator["nms"]) == (0.6, "matrix")
    assert (generator["seed_grid"], generator["similarity"]) == ([3, 4], "dot")


SMALL = MergingGenerator(min_cells=2, max_proposals=100, area_exponent=0.1)
FREEMASK = SaliencyGenerator(pooling="bilinear", nms="matrix", min_score=0.7, max_width=0.95, top_margin=0.2)


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        (None, SaliencyGenerator()),
        ("saliency", SaliencyGenerator()),
        ("random", RandomGenerator()),
        ("freemask", FREEMASK),
    ],
)
def test_a_config_says_which_generator_and_what_differs_from_its_defaults(
    name: str | None, generator: ProposalGenerator
) -> None:
    settings = read_settings(None, name, ())
    assert build_generator(settings["generator"]) == generator
    assert set(settings) == {"generator"}


def test_merging_joins_earlier_feature_maps() -> None:
    settings = read_settings(None, "merging", ())
    assert build_generator(settings.pop("generator")) == MergingGenerator()
    assert settings == {"feature_stride": 16}


@pytest.mark.parametrize("name", [None, "merging"])
def test_small_objects_have_settings_of_their_own(name: str | None) -> None:
    settings = read_settings(None, name, ("min_cells=2",), objects="small")
    assert build_generator(settings.pop("generator")) == SMALL
    assert settings == {"feature_stride": 16, "full_size": True, "long_side": 4096, "tile": 1024}


def test_a_trained_model_may_find_more_of_small_objects() -> None:
    settings = read_settings(None, "checkpoint", ("min_score=0.2",), objects="small")
    assert settings.pop("generator") == {"name": "checkpoint", "max_proposals": 100, "min_score": 0.2}
    assert settings == {"full_size": True, "long_side": 4096, "tile": 1024}


def test_a_generator_without_settings_for_small_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"saliency has no settings for small objects, .* GENERATOR=merging has them"):
        read_settings(None, "saliency", (), objects="small")
    with pytest.raises(UserError, match="my_module:Class has no settings"):
        read_settings(None, "my_module:Class", (), objects="small")
    config = tmp_path / "mine.toml"
    config.write_text("[small]\ntile = 512\n[small.generator]\nmin_cells = 4\n")
    assert read_settings(config, None, (), "small") == {"generator": {"min_cells": 4}, "tile": 512}
    assert read_settings(config, None, ()) == {"generator": {}}
    config.write_text("small = 3")
    with pytest.raises(UserError, match=r"mine\.toml has no settings for small objects"):
        read_settings(config, None, (), "small")


def test_import_needs_nothing_but_its_file(tmp_path: Path) -> None:
    (tmp_path / "masks.json").write_text("[]")
    generator = build_generator(read_settings(None, "import", (f"file={tmp_path}/masks.json",))["generator"])
    assert generator == ImportGenerator(f"{tmp_path}/masks.json")


def test_a_users_generator_takes_its_settings_from_the_command_line() -> None:
    name = "stage1_proposals.generators.random_shapes:RandomGenerator"
    settings = read_settings(None, name, ("count=3",))
    assert build_generator(settings["generator"]) == RandomGenerator(count=3)
    assert set(settings) == {"generator"}


def test_a_config_of_another_generator_is_refused() -> None:
    with pytest.raises(UserError, match="is for the generator random, not saliency"):
        read_settings(CONFIGS / "random.toml", "saliency", ())
    with pytest.raises(
        UserError,
        match="no generator 'magic'; there are checkpoint, freemask, import, merging, random, saliency",
    ):
        read_settings(None, "magic", ())
