import os
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from stage1_proposals.errors import UserError
from stage2_training.engine import PlainCheckpointHook, read_checkpoint, read_weights


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("read", [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, read):
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Evil(str(tmp_path / "proof"))}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: holds .*mkdir.*never code"):
        read(str(tmp_path / "a.pth"))
    assert not (tmp_path / "proof").exists()


def test_missing_damaged_and_foreign_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").touch()
    torch.save(torch.ones(1), tmp_path / "tensor.pth")
    torch.save({"epoch": 1}, tmp_path / "weightless.pth")
    for name in ("cut", "text", "empty", "tensor", "weightless"):
        with pytest.raises(UserError, match=f"{name}.pth"):
            read_weights(tmp_path / f"{name}.pth")


def test_reads_weights_bare_and_nested(tmp_path):
    weights = {"a": torch.ones(2)}
    for name, content in {
        "bare": weights,
        "nested": {"state_dict": OrderedDict(weights), "meta": {"epoch": 1}},
    }.items():
        torch.save(content, tmp_path / name)
        assert list(read_weights(tmp_path / name)) == ["a"]


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
