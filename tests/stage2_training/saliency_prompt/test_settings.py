from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


def test_defaults_are_the_papers() -> None:
    assert asdict(SaliencyPromptSettings(feature_dim=320)) == {
        "feature_dim": 320,
        "matching": "cosine",
        "pool_from": "pyramid",
        "center": False,
        "match_on": "initial",
        "add_to": "initial",
        "rescale": False,
        "level": -1,
        "detach": True,
        "drop_prob": 0.1,
        "groups": False,
        "kernel_loss": "cosine",
        "kernel_target": "seed",
        "kernel_loss_weight": 1.0,
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("matching", "best"),
        ("pool_from", "fpn"),
        ("center", 1),
        ("kernel_loss", "l2"),
        ("match_on", "query"),
        ("add_to", "query"),
        ("rescale", "yes"),
        ("level", "high"),
        ("level", 1.0),
        ("detach", "no"),
        ("drop_prob", 1.5),
        ("drop_prob", -0.1),
        ("drop_prob", "often"),
        ("drop_prob", True),
        ("kernel_loss_weight", -1),
        ("kernel_loss_weight", float("nan")),
        ("kernel_loss_weight", float("inf")),
        ("kernel_loss_weight", None),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: object) -> None:
    with pytest.raises(UserError, match=f"saliency_prompt.{setting} .*{value}"):
        SaliencyPromptSettings(feature_dim=320, **{setting: value})


@pytest.mark.parametrize("feature_dim", [0, "320", 2.5])
def test_seed_features_have_a_length(feature_dim: object) -> None:
    with pytest.raises(UserError, match=r"saliency_prompt\.feature_dim .*: should be "):
        SaliencyPromptSettings(feature_dim)


def test_whole_numbers_are_numbers_too() -> None:
    settings = SaliencyPromptSettings(320, drop_prob=0, kernel_loss_weight=2)
    assert (settings.drop_prob, settings.kernel_loss_weight) == (0, 2)


def test_unknown_and_missing_settings_are_named() -> None:
    with pytest.raises(
        UserError, match=r"saliency_prompt\.drop_probb: no such setting; use one of feature_dim, matching"
    ):
        SaliencyPromptSettings(feature_dim=320, drop_probb=0.2)
    with pytest.raises(UserError, match=r"saliency_prompt\.feature_dim: is missing"):
        SaliencyPromptSettings()


def test_settings_are_frozen_dataclasses() -> None:
    settings = SaliencyPromptSettings(feature_dim=320)
    assert SaliencyPromptSettings(**asdict(replace(settings, level=1))) == replace(settings, level=1)
    with pytest.raises(FrozenInstanceError):
        settings.level = 2
