import os
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import Sequential
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint

from stage1_proposals.common.checkpoints import read_checkpoint
from stage1_proposals.common.errors import UserError
from stage2_training.engine.checkpoints import PlainCheckpointHook, read_for_mmengine, use_safe_checkpoint_loader


@pytest.fixture(autouse=True)
def safe_loader() -> None:
    use_safe_checkpoint_loader()


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Evil(str(tmp_path / "proof"))}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: holds .*mkdir.*never code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("scheme", list(CheckpointLoader._schemes))
def test_every_loader_of_mmengine_is_replaced(scheme):
    assert CheckpointLoader._schemes[scheme] is read_for_mmengine


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/a.pth", "torchvision://resnet50", "open-mmlab://a", "x:s3://a/b.pth"]
)
def test_what_a_config_would_download_is_refused(url):
    """PyTorch's own download unpickles code, too."""
    with pytest.raises(UserError, match=rf"^{url}: no such checkpoint; nothing is downloaded here: get the file"):
        CheckpointLoader.load_checkpoint(url)


def test_weights_that_a_config_names_run_no_code(tmp_path):
    torch.save({"state_dict": {"0.weight": torch.ones(1)}, "meta": Evil(str(tmp_path / "proof"))}, tmp_path / "a.pth")
    for options in ({}, {"prefix": "0."}):
        model = Sequential(
            torch.nn.Linear(1, 1), init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")}
        )
        model.init_cfg |= options
        with pytest.raises(UserError, match=r"a\.pth: holds .*mkdir.*never code"):
            model.init_weights()
    assert not (tmp_path / "proof").exists()


def test_a_config_in_a_checkpoint_is_not_run_when_mmengine_resumes(tmp_path):
    """Runner.resume evaluates `meta.config` of old checkpoints as Python."""
    code = f"import os\nos.mkdir({str(tmp_path / 'proof')!r})\n"
    meta = {"epoch": 0, "iter": 1, "config": code}
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    torch.save({"state_dict": {"0.weight": torch.ones(1, 1)}, "meta": meta, "message_hub": hub}, tmp_path / "a.pth")
    model = Sequential(torch.nn.Linear(1, 1, bias=False))
    loader = {"batch_size": 1, "sampler": {"type": "DefaultSampler"}, "dataset": [0, 1]}
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1}},
        experiment_name="resumed",
        log_level="ERROR",
    )
    runner.resume(str(tmp_path / "a.pth"), resume_optimizer=False, resume_param_scheduler=False)
    assert runner.iter == 1
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("nest", [lambda state: state, lambda state: {"model": state}, lambda state: {"net": state}])
def test_weights_are_found_where_mmengine_does_not_look(tmp_path, nest):
    """MMEngine itself takes `{"model": ...}` for a state dict, finds none of its names and says nothing."""
    torch.save(nest({"weight": torch.full((1, 1), 5.0)}), tmp_path / "a.pth")
    model = torch.nn.Linear(1, 1, bias=False)
    load_checkpoint(model, str(tmp_path / "a.pth"), strict=True)
    assert model.weight == 5


def test_saved_checkpoints_hold_plain_values_only(tmp_path):
    hub = {
        "log_scalars": OrderedDict(loss=HistoryBuffer([1.0], [1])),
        "runtime_info": OrderedDict(eta=np.float64(2.5), iter=3, dataset_meta={"classes": ("object",)}),
        "resumed_keys": OrderedDict(loss=True, eta=True, iter=True),
    }
    checkpoint = {"state_dict": {}, "message_hub": hub}
    PlainCheckpointHook().before_save_checkpoint(SimpleNamespace(), checkpoint)
    torch.save(checkpoint, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")["message_hub"]
    assert read["runtime_info"] == {"eta": 2.5, "iter": 3, "dataset_meta": {"classes": ("object",)}}
    assert read["log_scalars"] == {}
    assert set(read["resumed_keys"]) == {"eta", "iter"}
