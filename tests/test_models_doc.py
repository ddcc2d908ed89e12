"""docs/models.md names every model, and shows an adapter that is the real one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_adapter_shown_is_the_file() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert code == (ROOT / "stage2_training" / "saliency_prompt" / "maskformer.py").read_text()


def test_every_model_is_named() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {file.stem.removesuffix("_lite0") for file in (ROOT / "configs" / "models").glob("*.py")}


def test_the_files_named_exist() -> None:
    paths = re.findall(r"`((?:stage2_training|tests|configs)/[\w/]+\.py)`", PAGE)
    assert paths
    assert all((ROOT / path).exists() for path in paths if "NAME" not in path)
