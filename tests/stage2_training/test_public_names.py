"""What `stage2_training` offers in Python, without importing MMDetection before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import stage2_training

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", stage2_training.PUBLIC)
def test_each_name_can_be_imported(name: str) -> None:
    assert getattr(stage2_training, name).__name__ == name


def test_other_names_are_missing() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        _ = stage2_training.predict


def test_functions_are_imported_without_pytorch_so_that_they_can_choose_the_device() -> None:
    code = "import sys; from stage2_training import finetune, pretrain; print({'torch', 'mmengine'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout == "set()\n", ended.stderr
