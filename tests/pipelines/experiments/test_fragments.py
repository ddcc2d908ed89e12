import shutil

import pytest
from mmengine.config import Config

from pipelines.experiments import fragments
from pipelines.experiments.plan import shards_run
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import DEMO

DATASETS = sorted(path.stem for path in (fragments.CONFIGS / "datasets").glob("*.py"))


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A copy of the configs that a test may change."""
    copy = tmp_path / "configs"
    shutil.copytree(fragments.CONFIGS, copy)
    monkeypatch.setattr(fragments, "CONFIGS", copy)
    return copy


def name_of():
    fragments._digest.cache_clear()
    made_of = fragments.of_training("knet_lite0", "demo", "finetune_demo")
    return Run("finetune", "it", ("--seed", "0"), "--work-dir", configs=made_of).name


@pytest.mark.parametrize("file", ["models/parts/resnet50.py", "schedules/finetune.py", "datasets/ctw1500.py"])
def test_a_changed_base_is_another_run(configs, file):
    before = name_of()
    with (configs / file).open("a") as fragment:
        fragment.write("\nfind_unused_parameters = True\n")
    assert name_of() != before


def test_comments_docstrings_and_layout_are_the_same_run(configs):
    before = name_of()
    path = configs / "models/knet_lite0.py"
    _docstring, rest = path.read_text().split("\n", 1)
    path.write_text(f'"""Another."""\n\n# Why.\n{rest}\n\n')
    assert name_of() == before


def test_another_models_fragment_is_nothing_to_a_run(configs):
    before = name_of()
    (configs / "models/solov2.py").write_text("model = dict()\n")
    assert name_of() == before


def test_what_a_generator_does_by_default_is_in_the_name_of_its_shards(configs):
    before = shards_run("saliency", DEMO, 0).name
    path = configs / "proposals/saliency.toml"
    path.write_text(f"seed = 8\n{path.read_text()}")
    fragments._digest.cache_clear()
    assert shards_run("saliency", DEMO, 0).name != before


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_schedule_that_a_dataset_has_by_default_is_the_composed_configs(dataset):
    labels = Config.fromfile(fragments.CONFIGS / f"datasets/{dataset}.py", import_custom_modules=False)
    expected = labels.get("default_schedule", "finetune")
    assert f"schedules/{expected}.py" in fragments.of_training("knet", dataset, None)
