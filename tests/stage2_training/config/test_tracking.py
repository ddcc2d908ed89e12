"""W&B and MLflow are told of a run when asked to, and of nothing else."""

import importlib.machinery
import sys
from types import ModuleType

import pytest
from mmengine.visualization import WandbVisBackend

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.config.tracking import untrack

OURS = ["LocalVisBackend", "TensorboardVisBackend"]


def backends(config) -> list[str]:
    return [backend["type"] for backend in config.visualizer.vis_backends]


def installed(monkeypatch, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_off_by_default():
    assert backends(finetuning_config("knet_lite0", "demo")) == OURS


@pytest.mark.parametrize(("tracker", "backend"), [("wandb", "WandbVisBackend"), ("mlflow", "MLflowVisBackend")])
def test_a_tracker_is_added_when_asked_for_and_leaves_with_the_training(monkeypatch, tracker, backend):
    installed(monkeypatch, tracker)
    config = finetuning_config("knet_lite0", "demo", overrides=Overrides(track=tracker))
    assert backends(config) == [*OURS, backend]
    untrack(config)
    assert backends(config) == OURS


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named(monkeypatch, tracker):
    monkeypatch.setattr("stage2_training.config.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"^--track {tracker}: the package {tracker} is not installed; `.*install "):
        finetuning_config("knet_lite0", "demo", overrides=Overrides(track=tracker))


def test_wandb_gets_the_scalars(monkeypatch, tmp_path):
    wandb, sent = installed(monkeypatch, "wandb"), []
    wandb.init = lambda **given: sent.append(given)
    wandb.log = lambda values, commit: sent.append(values)
    config = finetuning_config("knet_lite0", "demo", overrides=Overrides(track="wandb"))
    settings = dict(config.visualizer.vis_backends[-1])
    assert settings.pop("type") == WandbVisBackend.__name__
    WandbVisBackend(str(tmp_path), **settings).add_scalars({"loss": 1.5})
    assert sent == [{"project": "saliency-prompt", "dir": str(tmp_path)}, {"loss": 1.5}]
