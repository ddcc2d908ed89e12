import pytest

from stage1_proposals.errors import UserError
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


def test_defaults_are_the_papers() -> None:
    settings = SaliencyPromptSettings(feature_dim=320)
    assert settings == SaliencyPromptSettings(320, "cosine", "initial", -1, True, 0.1, 1.0)


@pytest.mark.parametrize(
    ("setting", "value"), [("matching", "best"), ("match_on", "query"), ("drop_prob", 1.5), ("drop_prob", -0.1)]
)
def test_a_wrong_setting_is_named(setting: str, value: object) -> None:
    with pytest.raises(UserError, match=f"saliency_prompt.{setting} .*{value}"):
        SaliencyPromptSettings(feature_dim=320, **{setting: value})
