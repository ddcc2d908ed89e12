"""docs/models.md names every model, and shows an adapter as it stands in the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_adapter_shown_is_in_the_code() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert code.startswith("@MODELS.register_module()\nclass SaliencyPromptMaskFormer")
    assert "\ndeclare_traits(" in code
    assert code in (ROOT / "stage2_training" / "saliency_prompt" / "detectors.py").read_text()


def test_every_model_is_named() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {file.stem.removesuffix("_lite0") for file in (ROOT / "configs" / "models").glob("*.py")}


def test_the_files_named_exist() -> None:
    paths = re.findall(r"`((?:stage2_training|tests|configs)/[\w/]+\.py)`", PAGE)
    assert paths
    assert all((ROOT / path).exists() for path in paths if "NAME" not in path)
