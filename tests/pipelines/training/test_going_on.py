"""A training run goes on where it was, with what is its own."""

import errno
import json
import os
import re

import h5py
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.runner import ValLoop

from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.runs.work_dir import WorkDir
from tests.pipelines.training.commands import Evil, finetune_arguments, pretrain_arguments


@pytest.fixture
def unfinished(shards, command, tmp_path) -> list[object]:
    """The arguments of a pre-training run in `tmp_path / "run"` that has come to step 2 of 3."""
    arguments = pretrain_arguments(shards, tmp_path / "run", "--epochs", "1")
    assert command("pretrain", *arguments)[0] == 0
    (tmp_path / "run" / "finished.json").unlink()
    (tmp_path / "run" / "last_checkpoint").write_text("iter_2.pth")
    return arguments


def test_a_run_goes_on_with_a_checkpoint_of_its_own_alone(unfinished, command, tmp_path):
    path = tmp_path / "run" / "iter_2.pth"
    checkpoint = torch.load(path)
    torch.save({**checkpoint, "extra": Evil(tmp_path / "proof")}, path)
    code, printed = command("pretrain", *unfinished)
    assert (code, printed.splitlines()[-1].startswith(f"error: {path}: holds ")) == (2, True), printed
    assert not (tmp_path / "proof").exists()

    # Of seed features of another length: MMEngine would go on with a new linear layer and say nothing.
    checkpoint["state_dict"]["kernel_supervision.linear.weight"] = torch.zeros(32, 2048)
    torch.save(checkpoint, path)
    code, printed = command("pretrain", *unfinished)
    assert (code, printed.splitlines()[-1]) == (
        2,
        f"error: {path}: not a checkpoint of this model; 1 tensors differ: kernel_supervision.linear.weight "
        "(shape (32, 2048), the model's is (32, 320))",
    )


def test_other_shards_under_a_run_are_one_line(unfinished, shards, command, tmp_path, monkeypatch):
    def fails(message: str, *more: str) -> None:
        code, printed = command("pretrain", *unfinished, *more)
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1), printed
        assert re.search(message, lines[0]), printed
        assert "Traceback" not in printed

    fails(
        r"shards: its seed features, of lite0_imagenet, have 320 numbers, but .*feature_dim is 64: leave that",
        "model.saliency_prompt.feature_dim=64",
    )
    manifest = shards.directory / "manifest.json"
    text = manifest.read_text()
    contents = [path.read_bytes() for path in shards.shard_paths]
    manifest.write_text(text.replace(shards.entries[1].content_sha256, "0" * 64))
    (tmp_path / "other.h5").write_bytes(contents[1])
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file.attrs["content_sha256"] = "0" * 64
    (tmp_path / "other.h5").replace(shards.shard_paths[1])
    fails(
        r"run holds a run with other pseudo labels: pseudo_labels\.content_sha256 is '.*; give the same pseudo labels"
    )
    manifest.write_text(text)
    shards.shard_paths[1].write_bytes(contents[1])

    with monkeypatch.context() as late:  # gone after the start, before the first read
        run_epoch = ResumableEpochLoop.run_epoch

        def deleted(loop):
            for path in shards.shard_paths:
                path.unlink()
            run_epoch(loop)

        late.setattr(ResumableEpochLoop, "run_epoch", deleted)
        fails(r"^error: \S+/shard-0000\d-of-00002\.h5: is missing; restore it, or run the same `make proposals` again$")
    fails(r"^error: \S+/shards: 2 shards are missing \(shard-00000-of-00002\.h5 \.\.\.\); run `make proposals` again$")

    for path, content in zip(shards.shard_paths, reversed(contents), strict=True):  # exchanged under their manifest
        path.write_bytes(content)
    unfinished[unfinished.index("--workers") + 1] = 1
    fails(r"^error: \S+/shard-0000\d-of-00002\.h5: was replaced by another shard since manifest\.json was read;")


def test_images_that_moved_are_found_under_another_root(shards, command, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    arguments = pretrain_arguments(shards, tmp_path / "run", "--epochs", "1")
    code, printed = command("pretrain", *arguments)
    assert code == 2
    assert re.match(r"error: \S+/images/\d\.png: does not exist; put the image back", printed.splitlines()[-1])
    arguments[arguments.index("--workers") + 1] = 1
    code, printed = command("pretrain", "--image-root", tmp_path / "moved", *arguments)
    assert code == 0, printed


def test_an_interrupted_run_ends_as_an_undisturbed_one(dataset, command, tmp_path, monkeypatch):
    """Stopped after step 3 of 4, in the middle of epoch 2, it goes on from there to the same weights and scores.

    Images are flipped and rotated at random, the weights are averaged.
    """
    batches: list[list[int]] = []
    run_iter = ResumableEpochLoop.run_iter

    def watched(loop, index, batch):
        if crash_at == len(batches):
            raise KeyboardInterrupt
        batches.append([sample.img_id for part in batch for sample in part["data_samples"]])
        run_iter(loop, index, batch)

    monkeypatch.setattr(ResumableEpochLoop, "run_iter", watched)
    crash_at = None
    arguments = finetune_arguments(dataset, tmp_path / "whole", "--init", "imagenet", "--ema")
    arguments[arguments.index("default_hooks.checkpoint.interval=2")] = "default_hooks.checkpoint.interval=3"
    assert command("finetune", *arguments)[0] == 0
    whole, batches[:] = list(batches), []
    assert len(whole) == 4

    arguments[arguments.index(tmp_path / "whole")] = tmp_path / "parts"
    crash_at = 3
    code, printed = command("finetune", *arguments)
    assert code == 130
    assert WorkDir(tmp_path / "parts").latest_checkpoint() == tmp_path / "parts" / "iter_3.pth"
    crash_at = None
    with monkeypatch.context() as evaluation:  # and then in the evaluation after the last step

        def interrupted(loop):
            raise KeyboardInterrupt

        evaluation.setattr(ValLoop, "run", interrupted)
        code, printed = command("finetune", *arguments)
    assert code == 130
    assert "Resuming from" in printed
    assert batches == whole
    code, printed = command("finetune", *arguments)
    assert code == 0
    assert batches == whole
    curves = [json.loads((tmp_path / name / "curve.json").read_text()) for name in ("whole", "parts")]
    assert curves[0][-1] == pytest.approx(curves[1][-1], abs=1e-6)

    results = [torch.load(tmp_path / name / "iter_4.pth") for name in ("whole", "parts")]
    for weights in ("state_dict", "ema_state_dict"):
        for name, value in results[0][weights].items():
            assert torch.allclose(value, results[1][weights][name], rtol=1e-4, atol=1e-6), name
    name = "roi_head.mask_head.1.fc_mask.weight"
    assert not torch.equal(results[0]["state_dict"][name], results[0]["ema_state_dict"][f"module.{name}"])
    assert results[0]["param_schedulers"] == results[1]["param_schedulers"]


def test_a_disk_that_fills_up_in_training_is_one_line_and_checkpoints_are_kept(shards, command, tmp_path, monkeypatch):
    arguments = pretrain_arguments(shards, tmp_path / "run", "--epochs", "2")
    with monkeypatch.context() as disk:
        put = LocalBackend.put

        def fill_up(backend, data, path):
            if "iter_4.pth" in str(path):
                put(backend, data[:100], path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            put(backend, data, path)

        disk.setattr(LocalBackend, "put", fill_up)
        code, printed = command("pretrain", *arguments)
    message = "No space left on device; finished checkpoints are kept, run again to go on"
    assert (code, printed.splitlines()[-1]) == (2, f"error: {tmp_path / 'run'}: {message}")
    code, printed = command("pretrain", *arguments)
    assert code == 0
    assert f"Resuming from {tmp_path / 'run' / 'iter_2.pth'}" in printed
