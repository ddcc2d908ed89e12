"""What a user can get wrong in training is one line and exit code 2; what we get wrong is not hidden."""

import errno
import os
import re
from pathlib import Path

import pytest
import torch

from stage2_training.config import compose
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.runs import train as training
from tests.pipelines.training.commands import Evil, finetune_arguments, pretrain_arguments


def test_no_checkpoint_runs_code(dataset, command, tmp_path):
    evil, fine = tmp_path / "a.pth", tmp_path / "fine"
    torch.save({"state_dict": {"backbone.a": torch.ones(1)}, "meta": Evil(tmp_path / "proof")}, evil)
    evil_backbone = ("model.backbone.init_cfg.type=Pretrained", f"model.backbone.init_cfg.checkpoint={evil}")
    evaluated = ["--model", "knet_lite0", "--dataset", dataset, "--checkpoint", evil, "--device", "cpu"]
    for name, arguments in (
        ("finetune", finetune_arguments(dataset, fine, "--init", evil)),
        ("finetune", finetune_arguments(dataset, fine, "--checkpoint", evil)),
        ("finetune", finetune_arguments(dataset, fine, "--init", "imagenet", "--weights", evil)),
        ("finetune", [*finetune_arguments(dataset, fine, "--init", "scratch"), *evil_backbone]),
        ("evaluate", evaluated),
    ):
        code, printed = command(name, *arguments)
        assert (code, printed.count("error: ")) == (2, 1), printed
        assert re.search(r"a\.pth: holds .*mkdir.*never code", printed)
    assert not (tmp_path / "proof").exists()


def test_user_errors_are_one_line_and_exit_code_2(shards, dataset, command, tmp_path):
    def fails(message: str, *words: object) -> None:
        code, printed = command(*words)
        lines = [line for line in printed.strip().splitlines() if line.startswith("error: ")]
        assert code == 2, printed
        assert [bool(re.search(message, line)) for line in lines] == [True], printed
        assert "Traceback" not in printed

    fails("no model 'knot'", "pretrain", "--model", "knot", "--shards", shards.directory)
    fails("no shard set here", "pretrain", "--model", "knet_lite0", "--shards", tmp_path)
    run = tmp_path / "run"
    fails(
        "a.pth: no such checkpoint", "finetune", *finetune_arguments(dataset, run, "--checkpoint", tmp_path / "a.pth")
    )
    torch.save({"state_dict": {"backbone.a": torch.ones(1)}}, tmp_path / "a.pth")
    needed = r"a\.pth: \d+ tensors that the model needs.*; use a checkpoint of the same model"
    fails(needed, "finetune", *finetune_arguments(dataset, run, "--checkpoint", tmp_path / "a.pth"))
    fails(
        "--checkpoint goes with --init sp",
        "finetune",
        *finetune_arguments(dataset, run, "--init", "scratch", "--checkpoint", "a"),
    )
    fails("nothing to evaluate", "evaluate", "--model", "knet_lite0")
    fails(
        "not a checkpoint of this model",
        "evaluate",
        "--model",
        "knet_lite0",
        "--dataset",
        dataset,
        "--checkpoint",
        tmp_path / "a.pth",
    )

    # An image that changed since stage 1, met in a data-loading process.
    from PIL import Image

    for image in (tmp_path / "images").glob("*.png"):
        Image.new("RGB", (10, 10)).save(image)
    arguments = pretrain_arguments(shards, tmp_path / "pre")
    arguments[arguments.index("--workers") + 1] = 1
    fails(
        r"^error: \S+/images/\d\.png: is 10 x 10 pixels, but its labels are for 64 x 48; restore",
        "pretrain",
        *arguments,
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.saliency_prompt.drop_probb=0.2", r"saliency_prompt\.drop_probb: no such setting; use one of"),
        ("model.saliency_prompt.level=9", r"saliency_prompt\.level 9: use one from -4 to 3"),
        ("=3", r"--cfg-options : no such setting$"),
        ("custom_imports=3", r"does not fit the config \("),
        ("model.neck.type=FPM", r"does not fit the config \('FPM is not in"),
        ("model.rpn_head.num_kernels=-1", r"does not fit the config \("),
        ("randomness.seed=x", r"does not fit the config \("),
        ("optim_wrapper.optimizer.lrr=9", r"does not fit the config \(.*'lrr'\)"),
        ("param_scheduler.0.ends=9", r"does not fit the config \(.*'ends'\)"),
        ("train_dataloader.bach_size=9", r"does not fit the config \(.*'bach_size'\)"),
        ("train_dataloader.batch_size=[1,(2", r"does not fit the config \(Imbalanced brackets"),
        ("train_dataloader.batch_size=zz", r"train_dataloader\.batch_size 'zz': use an integer"),
    ],
    ids=lambda value: value if "=" in value else "",
)
def test_mistyped_options_are_one_line_and_exit_code_2(shards, command, tmp_path, option, message):
    code, printed = command("pretrain", *pretrain_arguments(shards, tmp_path / "run"), option)
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), printed
    assert re.search(message, lines[0])
    assert "Traceback" not in printed


def test_mistyped_options_of_an_evaluation_are_one_line_too(dataset, command, tmp_path):
    model = training.initial_model(compose.finetuning_config("knet_lite0", str(dataset)))
    torch.save({"state_dict": model}, tmp_path / "a.pth")
    common = ["--model", "knet_lite0", "--dataset", dataset, "--checkpoint", tmp_path / "a.pth", "--device", "cpu"]
    for option in ("model.rpn_head.channelss=8", "test_dataloader.bach_size=9"):
        code, printed = command("evaluate", *common, "--cfg-options", option)
        assert code == 2, printed
        assert printed.splitlines()[-1].startswith(f"error: --cfg-options {option}: does not fit the config (")


def test_initial_weights_that_cannot_be_written_are_one_line(shards, command, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, printed = command("pretrain", *pretrain_arguments(shards, tmp_path / "run"))
    assert (code, printed) == (
        2,
        f"error: {tmp_path / 'run' / 'initial.pth'}: cannot be written (No space left on device)\n",
    )


def test_where_scores_go_is_checked_before_they_are_made(dataset, command, tmp_path, monkeypatch):
    def needless(*args):
        raise AssertionError

    monkeypatch.setattr(training, "evaluate", needless)
    (tmp_path / "a.pth").touch()
    common = ["--model", "knet_lite0", "--dataset", dataset, "--checkpoint"]
    for checkpoint, out, message in (
        ("a.pth", tmp_path, f"{tmp_path}: is a folder; name a file"),
        ("a.pth", dataset / "x.json", f"{dataset / 'x.json'}: cannot be written (File exists)"),
        ("b.pth", tmp_path / "x.json", f"{tmp_path / 'b.pth'}: no such checkpoint"),
        ("", tmp_path / "x.json", f"{tmp_path}: has no checkpoint yet"),
    ):
        arguments = (*common, tmp_path / checkpoint, "--device", "cpu", "--out", out)
        assert command("evaluate", *arguments) == (2, f"error: {message}\n")
    assert not (tmp_path / "x.json").exists()


def test_options_are_not_blamed_for_what_fails_in_training(shards, command, tmp_path, monkeypatch):
    def fail(*args):
        raise ValueError("ours")

    monkeypatch.setattr(ResumableEpochLoop, "run_iter", fail)
    with pytest.raises(ValueError, match="ours"):
        command("pretrain", *pretrain_arguments(shards, tmp_path / "run"))


def test_what_else_the_system_says_in_training_is_not_hidden(shards, command, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(ResumableEpochLoop, "run_iter", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        command("pretrain", *pretrain_arguments(shards, tmp_path / "run"))
