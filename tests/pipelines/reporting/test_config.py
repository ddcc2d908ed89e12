import pytest
from mmengine.config import Config
from pipelines.reporting.config import at, read_config

from stage2_training.config.compose import finetuning_config


@pytest.mark.parametrize("model", ["knet", "mask2former_lite0", "queryinst_lite0"])
def test_reads_what_mmengine_writes(tmp_path, model):
    path = tmp_path / "config.py"
    path.write_text(finetuning_config(model, "ctw1500").dump())
    assert read_config(path) == Config.fromfile(path, import_custom_modules=False).to_dict()


def test_reads_keys_that_are_no_names(tmp_path):
    path = tmp_path / "config.py"
    value = {"a.b": (1, -2.5), "c": {"1": None, "d": [True, "e\n'\""]}}
    path.write_text(Config({"value": value}).dump())
    assert read_config(path) == {"value": value}


@pytest.mark.parametrize(
    "text", ["import os", "a = open('x')", "a = dict(1)", "a = dict(b=print())", "a.b = 1", "a = 1 +", "a = b"]
)
def test_runs_nothing(tmp_path, text):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises((ValueError, SyntaxError)):
        read_config(path)


def test_at_goes_down_dictionaries_alone():
    config = {"a": {"b": 1, "c": [2]}}
    assert at(config, "a.b") == 1
    assert at(config, "a.c.0", "no") == "no"
    assert at(config, "a.b.c") is None
