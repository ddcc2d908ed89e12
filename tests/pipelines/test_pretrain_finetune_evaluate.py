"""The three training commands, one after the other, on a tiny model and a few tiny photos."""

import errno
import json
import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.runner import ValLoop

from pipelines import cli, evaluate, finetune, pretrain
from stage1_proposals.clusters import cluster_shards
from stage1_proposals.directory import sole_user
from stage1_proposals.shards import ShardSet
from stage1_proposals.weights import file_sha256, locate_weights
from stage2_training import compose, initialisation, training
from stage2_training.commands import read_commands
from stage2_training.compose import finetuning_config
from stage2_training.engine import ResumableEpochLoop
from stage2_training.options import Overrides
from stage2_training.scores import AP_NAMES, SCORE_NAMES
from stage2_training.training import initial_model
from stage2_training.transfer import plan_transfer
from stage2_training.work_dir import WorkDir
from tests import tiny_knet

SMALL = (*tiny_knet.MODEL, *tiny_knet.TRAINING_PHOTOS, "default_hooks.checkpoint.interval=2")


@pytest.fixture
def shards(write_shards, make_record, rectangles) -> ShardSet:
    """Five photos in two shards with 0, 1, 2, 0 and 1 masks."""
    rng = np.random.default_rng(0)
    records = []
    for image in range(5):
        masks = rectangles([(8 * m, 4, 8 * m + 20, 30) for m in range(image % 3)], 48, 64)
        records.append(make_record(image + 1, f"{image}.png", masks, rng.standard_normal((len(masks), 320))))
    backbone = {"feature_dim": 320, "sha256": file_sha256(locate_weights("lite0_imagenet"))}
    return write_shards([records[:3], records[3:]], backbone)


@pytest.fixture
def dataset(write_labels, tmp_path) -> Path:
    """A dataset fragment of four labelled photos."""
    root = write_labels()
    loader = "dict(dataset=dict(type='CocoDataset', data_root={root!r}, ann_file='annotations/{split}.json', {rest}))"
    common = "data_prefix=dict(img=''), metainfo=dict(classes=('text',)),"
    (tmp_path / "tiny.py").write_text(
        "epochs = 2\nmilestones = (1,)\n"
        f"train_dataloader = {loader.format(root=str(root), split='train', rest=common)}\n"
        f"val_dataloader = {loader.format(root=str(root), split='test', rest=common + ' test_mode=True')}\n"
        "val_evaluator = dict(type='MaskAP')\n"
    )
    return tmp_path / "tiny.py"


@pytest.fixture(autouse=True)
def one_thread(all_threads: None) -> None:
    """Tensors this small take longer on several threads."""
    torch.set_num_threads(1)


@pytest.fixture
def command(tmp_path, capfd) -> Callable[..., tuple[int, str]]:
    """Run a command in this process: its exit code, and what it printed."""

    def run(module, *argv: object) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.run(module.main, module.build_parser(), [str(word) for word in argv])
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


def pretrain_arguments(shards: ShardSet, work_dir: Path, *more: str) -> list[object]:
    common = ["--model", "knet_lite0", "--schedule", "pretrain_demo", "--shards", shards.directory, "--device", "cpu"]
    return [*common, "--work-dir", work_dir, "--total-batch", 2, "--workers", 0, *more, "--cfg-options", *SMALL]


def finetune_arguments(dataset: Path, work_dir: Path, *more: object) -> list[object]:
    common = ["--model", "knet_lite0", "--schedule", "finetune_demo", "--dataset", dataset, "--device", "cpu"]
    small = (*SMALL, *tiny_knet.TEST_PHOTOS)
    return [*common, "--work-dir", work_dir, "--total-batch", 2, "--workers", 0, *more, "--cfg-options", *small]


def test_the_whole_of_stage_2(shards, dataset, command, tmp_path, monkeypatch):
    pre, fine = tmp_path / "pre", tmp_path / "fine"

    code, printed = command(pretrain, *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert code == 0, printed
    assert re.search(r"epoch 2/2  step 3/3  loss \d", printed)
    assert "WARNING" not in printed
    assert "Could not import" not in printed
    assert WorkDir(pre).latest_checkpoint() == pre / "iter_6.pth"
    assert {path.name for path in pre.glob("iter_*.pth")} == {"iter_4.pth", "iter_6.pth"}

    before = {path: path.stat().st_mtime_ns for path in pre.rglob("*.pth")}
    code, printed = command(pretrain, *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert code == 0
    assert "finished already" in printed
    assert {path: path.stat().st_mtime_ns for path in pre.rglob("*.pth")} == before

    code, printed = command(
        pretrain, *pretrain_arguments(shards, pre, "--epochs", "2", "--saliency-prompt", "matching=none")
    )
    assert code == 2
    assert "model.saliency_prompt.matching is 'cosine' there, 'none' now" in printed
    assert len(printed.strip().splitlines()) == 1

    with sole_user(pre):
        code, printed = command(pretrain, *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert (code, printed) == (2, f"error: {pre}: another run is writing there\n")

    # The first command alone started something; the others found it finished, or were refused.
    (start,) = read_commands(pre)
    typed = [str(word) for word in pretrain_arguments(shards, pre, "--epochs", "2")]
    assert start["argv"] == ["python", "-m", "pipelines.pretrain", *typed]
    assert start["device"] == "cpu"

    code, printed = command(finetune, *finetune_arguments(dataset, fine, "--checkpoint", pre / "iter_6.pth"))
    assert code == 0, printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith(("r", "k", "b"))}
    assert rows["rpn_head.init_kernels"] == ["1", "-", "-"]
    assert rows["kernel_supervision"] == ["-", "2", "-"]
    initial = torch.load(fine / "initial.pth")["state_dict"]
    pretrained = torch.load(pre / "iter_6.pth")["state_dict"]
    for name in (
        "rpn_head.init_kernels.weight",
        "backbone.model.conv_stem.weight",
        "roi_head.mask_head.1.fc_mask.weight",
    ):
        assert torch.equal(initial[name], pretrained[name])
    curve = json.loads((fine / "curve.json").read_text())
    assert [point["epoch"] for point in curve] == [2]
    assert (fine / "curve.png").stat().st_size > 0

    code, printed = command(evaluate, "--work-dir", fine, "--device", "cpu")
    assert code == 0, printed
    metrics = json.loads((fine / "metrics.json").read_text())
    assert {name: metrics[name] for name in SCORE_NAMES} == {name: curve[-1][name] for name in SCORE_NAMES}
    assert all(name in printed for name in (*AP_NAMES, "masks", "boxes"))

    arguments = ("--model", "knet_lite0", "--dataset", dataset, "--device", "cpu", "--out", tmp_path / "again.json")
    photos = tiny_knet.TEST_PHOTOS
    code, printed = command(evaluate, *arguments, "--checkpoint", fine, "--cfg-options", *tiny_knet.MODEL, *photos)
    assert code == 0, printed
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["checkpoint"] == str(fine / "iter_4.pth")
    assert {name: again[name] for name in SCORE_NAMES} == {name: metrics[name] for name in SCORE_NAMES}

    # Without classes, any run on any photos.
    code, printed = command(evaluate, "--work-dir", fine, "--class-agnostic", "--device", "cpu")
    assert code == 0, printed
    merged = json.loads((fine / "class_agnostic.json").read_text())
    assert {name: merged[name] for name in SCORE_NAMES} == {name: metrics[name] for name in SCORE_NAMES}  # one class
    arguments = ("--work-dir", pre, "--dataset", dataset, "--device", "cpu", "--workers", 0)
    code, printed = command(evaluate, *arguments, "--class-agnostic", "--out", tmp_path / "pre.json")
    assert code == 0, printed
    merged = json.loads((tmp_path / "pre.json").read_text())
    assert merged.keys() == {*SCORE_NAMES, "AR@20", "box_AR@20", "checkpoint"}
    code, printed = command(evaluate, *arguments)
    assert (code, "--dataset beside --work-dir goes with --class-agnostic" in printed) == (2, True)
    code, printed = command(evaluate, "--work-dir", pre, "--model", "knet_lite0", "--device", "cpu")
    assert (code, "--model and --schedule do not go with --work-dir" in printed) == (2, True)
    code, printed = command(evaluate, "--work-dir", pre, "--class-agnostic")
    assert (code, "pre is a pre-training run, which has no labels" in printed) == (2, True)

    # MMDetection's own tools take the composed config as it is.
    tools = Path(mmdet.__file__).parent / ".mim" / "tools"
    other = str(tmp_path / "other")
    monkeypatch.setattr(sys, "argv", ["train.py", str(fine / "config.py"), "--work-dir", other])
    runpy.run_path(str(tools / "train.py"), run_name="__main__")
    assert (tmp_path / "other" / "iter_4.pth").is_file()
    monkeypatch.setattr(
        sys, "argv", ["test.py", str(fine / "config.py"), str(fine / "iter_4.pth"), "--work-dir", other]
    )
    runpy.run_path(str(tools / "test.py"), run_name="__main__")


def test_clusters_are_pretrained_on_and_their_classifiers_not_transferred(shards, dataset, command, tmp_path):
    pre, fine = tmp_path / "pre", tmp_path / "fine"
    arguments = pretrain_arguments(shards, pre, "--epochs", "1", "--pseudo-classes")
    code, printed = command(pretrain, *arguments)
    assert (code, len(printed.strip().splitlines())) == (2, 1)
    assert "no clusters; `make cluster SHARDS=" in printed

    cluster_shards(shards, 3, seed=0)
    code, printed = command(pretrain, *arguments)
    assert code == 0, printed
    pretrained = torch.load(pre / "iter_3.pth")
    assert pretrained["state_dict"]["roi_head.mask_head.1.fc_cls.weight"].shape == (3, 32)
    code, printed = command(pretrain, *pretrain_arguments(shards, pre, "--epochs", "1"))
    assert code == 2
    assert "holds a run with other pseudo labels: pseudo_labels.clusters." in printed

    three = dataset.with_name("three.py")  # as many classes as clusters, which mean something else
    three.write_text(dataset.read_text().replace("('text',)", "('text', 'b', 'c')"))
    for labels in (dataset, three):
        config = finetuning_config("knet_lite0", str(labels), overrides=Overrides(cfg_options=tiny_knet.MODEL))
        target = initial_model(config)
        start = initialisation.pretrained("knet_lite0", "KNet", str(pre / "iter_3.pth"))
        transfer = plan_transfer(start.read(target), target)
        transfer.require(start.needed, start.source, start.hint)
        assert sum("fc_cls" in name or "conv_seg" in name for name in transfer.missing) == 6
        assert "roi_head.mask_head.1.fc_mask.weight" in transfer.taken
    arguments = finetune_arguments(dataset, fine, "--checkpoint", pre / "iter_3.pth")
    code, printed = command(finetune, *arguments)
    assert code == 0, printed


def test_without_prompts_the_plain_detector_is_pretrained_in_a_directory_of_its_own(
    shards, dataset, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = pretrain_arguments(shards, "x", "--epochs", "1", "--prompts", "off")
    place = arguments.index("--work-dir")
    del arguments[place : place + 2]
    code, printed = command(pretrain, *arguments)
    assert code == 0, printed
    assert "Pre-training knet_lite0 without prompts on 5 photos" in printed
    pre = Path("work_dirs/pretrain/knet_lite0-pseudo")
    pretrained = torch.load(pre / "iter_3.pth")["state_dict"]
    assert not [name for name in pretrained if name.startswith("kernel_supervision")]

    code, printed = command(
        finetune, *finetune_arguments(dataset, tmp_path / "fine", "--init", "pseudo", "--epochs", 1)
    )
    assert code == 0, printed
    report = (tmp_path / "fine" / "transfer.txt").read_text()
    assert report in printed
    assert report.startswith(f"Initial weights: {pre / 'iter_3.pth'}\npart ")
    initial = torch.load(tmp_path / "fine" / "initial.pth")["state_dict"]
    assert torch.equal(initial["rpn_head.init_kernels.weight"], pretrained["rpn_head.init_kernels.weight"])

    # Another pre-training in the same fine-tuning directory would be another run.
    copied = tmp_path / "copy.pth"
    pretrained["rpn_head.init_kernels.weight"] += 1
    torch.save({"state_dict": pretrained}, copied)
    again = finetune_arguments(dataset, tmp_path / "fine", "--init", "pseudo", "--epochs", 1, "--checkpoint", copied)
    code, printed = command(finetune, *again)
    assert code == 2
    assert "fine holds a run with other initial weights: initialisation.sha256 is " in printed
    assert printed.endswith("or another --work-dir (WORK_DIR=) to begin a second run\n")

    code, printed = command(pretrain, *arguments[: -len(SMALL) - 1], "--saliency-prompt", "level=0")
    assert (code, printed) == (
        2,
        "error: --saliency-prompt goes with --prompts on: without prompts it would change nothing\n",
    )


@pytest.fixture
def unfinished(shards, command, tmp_path) -> list[object]:
    """The arguments of a pre-training run in `tmp_path / "run"` that has come to step 2 of 3."""
    arguments = pretrain_arguments(shards, tmp_path / "run", "--epochs", "1")
    assert command(pretrain, *arguments)[0] == 0
    (tmp_path / "run" / "finished.json").unlink()
    (tmp_path / "run" / "last_checkpoint").write_text("iter_2.pth")
    return arguments


class Evil:
    """Makes a directory when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_checkpoint_runs_code(dataset, command, tmp_path):
    evil, fine = tmp_path / "a.pth", tmp_path / "fine"
    torch.save({"state_dict": {"backbone.a": torch.ones(1)}, "meta": Evil(tmp_path / "proof")}, evil)
    evil_backbone = ("model.backbone.init_cfg.type=Pretrained", f"model.backbone.init_cfg.checkpoint={evil}")
    evaluated = ["--model", "knet_lite0", "--dataset", dataset, "--checkpoint", evil, "--device", "cpu"]
    for module, arguments in (
        (finetune, finetune_arguments(dataset, fine, "--init", evil)),
        (finetune, finetune_arguments(dataset, fine, "--checkpoint", evil)),
        (finetune, finetune_arguments(dataset, fine, "--init", "imagenet", "--backbone-weights", evil)),
        (finetune, [*finetune_arguments(dataset, fine, "--init", "scratch"), *evil_backbone]),
        (evaluate, evaluated),
    ):
        code, printed = command(module, *arguments)
        assert (code, printed.count("error: ")) == (2, 1), printed
        assert re.search(r"a\.pth: (holds .*mkdir.*never code|not a checkpoint of plain tensors)", printed)
    assert not (tmp_path / "proof").exists()


def test_a_run_goes_on_with_a_checkpoint_of_its_own_alone(unfinished, command, tmp_path):
    path = tmp_path / "run" / "iter_2.pth"
    checkpoint = torch.load(path)
    torch.save({**checkpoint, "extra": Evil(tmp_path / "proof")}, path)
    code, printed = command(pretrain, *unfinished)
    assert (code, printed.splitlines()[-1].startswith(f"error: {path}: holds ")) == (2, True), printed
    assert not (tmp_path / "proof").exists()

    # Of seed features of another length: MMEngine would go on with a new linear layer and say nothing.
    checkpoint["state_dict"]["kernel_supervision.linear.weight"] = torch.zeros(32, 2048)
    torch.save(checkpoint, path)
    code, printed = command(pretrain, *unfinished)
    assert (code, printed.splitlines()[-1]) == (
        2,
        f"error: {path}: not a checkpoint of this model; 1 tensors differ: kernel_supervision.linear.weight "
        "(shape (32, 2048), the model's is (32, 320))",
    )


def test_other_shards_under_a_run_are_one_line(unfinished, shards, command, tmp_path, monkeypatch):
    def fails(message: str, *more: str) -> None:
        code, printed = command(pretrain, *unfinished, *more)
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
    manifest.write_text(text.replace(shards.shards[1]["content_sha256"], "0" * 64))
    fails(
        r"run holds a run with other pseudo labels: pseudo_labels\.content_sha256 is '.*; give the same pseudo labels"
    )
    manifest.write_text(text)

    contents = [path.read_bytes() for path in shards.shard_paths]
    with monkeypatch.context() as late:  # gone after the start, before the first read
        run_epoch = ResumableEpochLoop.run_epoch

        def deleted(loop):
            for path in shards.shard_paths:
                path.unlink()
            run_epoch(loop)

        late.setattr(ResumableEpochLoop, "run_epoch", deleted)
        fails(r"^error: \S+/shard-0000\d-of-00002\.h5: has gone; put it back, or run the same `make proposals` again$")
    fails(r"^error: \S+/shards: 2 shards are missing \(shard-00000-of-00002\.h5 \.\.\.\); run `make proposals` again$")

    for path, content in zip(shards.shard_paths, reversed(contents), strict=True):  # exchanged under their manifest
        path.write_bytes(content)
    unfinished[unfinished.index("--workers") + 1] = 1
    fails(
        r"^error: \S+/shard-0000\d-of-00002\.h5: holds other pseudo labels than manifest\.json said when it was read;"
    )


def test_photos_that_moved_are_found_under_another_root(shards, command, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "moved")
    arguments = pretrain_arguments(shards, tmp_path / "run", "--epochs", "1")
    code, printed = command(pretrain, *arguments)
    assert code == 2
    assert re.match(r"error: \S+/photos/\d\.png: does not exist; put the photo back", printed.splitlines()[-1])
    arguments[arguments.index("--workers") + 1] = 1
    code, printed = command(pretrain, "--image-root", tmp_path / "moved", *arguments)
    assert code == 0, printed


def test_an_interrupted_run_ends_as_an_undisturbed_one(dataset, command, tmp_path, monkeypatch):
    """Stopped after step 3 of 4, in the middle of epoch 2, it goes on from there to the same weights and scores.

    Photos are flipped and rotated at random, the weights are averaged.
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
    assert command(finetune, *arguments)[0] == 0
    whole, batches[:] = list(batches), []
    assert len(whole) == 4

    arguments[arguments.index(tmp_path / "whole")] = tmp_path / "parts"
    crash_at = 3
    code, printed = command(finetune, *arguments)
    assert code == 130
    assert WorkDir(tmp_path / "parts").latest_checkpoint() == tmp_path / "parts" / "iter_3.pth"
    crash_at = None
    with monkeypatch.context() as evaluation:  # and then in the evaluation after the last step

        def interrupted(loop):
            raise KeyboardInterrupt

        evaluation.setattr(ValLoop, "run", interrupted)
        code, printed = command(finetune, *arguments)
    assert code == 130
    assert "Going on from" in printed
    assert batches == whole
    code, printed = command(finetune, *arguments)
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


def test_user_errors_are_one_line_and_exit_code_2(shards, dataset, command, tmp_path):
    def fails(message: str, module, *argv: object) -> None:
        code, printed = command(module, *argv)
        lines = [line for line in printed.strip().splitlines() if line.startswith("error: ")]
        assert code == 2, printed
        assert [bool(re.search(message, line)) for line in lines] == [True], printed
        assert "Traceback" not in printed

    fails("no model 'knot'", pretrain, "--model", "knot", "--shards", shards.directory)
    fails("no shard set here", pretrain, "--model", "knet_lite0", "--shards", tmp_path)
    run = tmp_path / "run"
    fails("a.pth: no such checkpoint", finetune, *finetune_arguments(dataset, run, "--checkpoint", tmp_path / "a.pth"))
    torch.save({"state_dict": {"backbone.a": torch.ones(1)}}, tmp_path / "a.pth")
    needed = r"a\.pth: \d+ tensors that the model needs.*; use a checkpoint of the same model"
    fails(needed, finetune, *finetune_arguments(dataset, run, "--checkpoint", tmp_path / "a.pth"))
    fails(
        "--checkpoint goes with --init sp",
        finetune,
        *finetune_arguments(dataset, run, "--init", "scratch", "--checkpoint", "a"),
    )
    fails("nothing to evaluate", evaluate, "--model", "knet_lite0")
    fails(
        "not a checkpoint of this model",
        evaluate,
        "--model",
        "knet_lite0",
        "--dataset",
        dataset,
        "--checkpoint",
        tmp_path / "a.pth",
    )

    # A photo that changed since stage 1, met in a data-loading process.
    from PIL import Image

    for photo in (tmp_path / "photos").glob("*.png"):
        Image.new("RGB", (10, 10)).save(photo)
    arguments = pretrain_arguments(shards, tmp_path / "pre")
    arguments[arguments.index("--workers") + 1] = 1
    fails(
        r"^error: \S+/photos/\d\.png: is 10 x 10 pixels, but its labels are for 64 x 48; restore", pretrain, *arguments
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.saliency_prompt.drop_probb=0.2", r"does not fit the config \(.*'drop_probb'\)"),
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
    code, printed = command(pretrain, *pretrain_arguments(shards, tmp_path / "run"), option)
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), printed
    assert re.search(message, lines[0])
    assert "Traceback" not in printed


def test_mistyped_options_of_an_evaluation_are_one_line_too(dataset, command, tmp_path):
    model = training.initial_model(compose.finetuning_config("knet_lite0", str(dataset)))
    torch.save({"state_dict": model}, tmp_path / "a.pth")
    common = ["--model", "knet_lite0", "--dataset", dataset, "--checkpoint", tmp_path / "a.pth", "--device", "cpu"]
    for option in ("model.rpn_head.channelss=8", "test_dataloader.bach_size=9"):
        code, printed = command(evaluate, *common, "--cfg-options", option)
        assert code == 2, printed
        assert printed.splitlines()[-1].startswith(f"error: --cfg-options {option}: does not fit the config (")


def test_options_are_not_blamed_for_what_fails_in_training(shards, command, tmp_path, monkeypatch):
    def fail(*args):
        raise ValueError("ours")

    monkeypatch.setattr(ResumableEpochLoop, "run_iter", fail)
    with pytest.raises(ValueError, match="ours"):
        command(pretrain, *pretrain_arguments(shards, tmp_path / "run"))


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
        code, printed = command(pretrain, *arguments)
    message = "No space left on device; finished checkpoints are kept, run again to go on"
    assert (code, printed.splitlines()[-1]) == (2, f"error: {tmp_path / 'run'}: {message}")
    code, printed = command(pretrain, *arguments)
    assert code == 0
    assert f"Going on from {tmp_path / 'run' / 'iter_2.pth'}" in printed


def test_initial_weights_that_cannot_be_written_are_one_line(shards, command, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, printed = command(pretrain, *pretrain_arguments(shards, tmp_path / "run"))
    assert (code, printed) == (
        2,
        f"error: {tmp_path / 'run' / 'initial.pth'}: cannot be written (No space left on device)\n",
    )


def test_what_else_the_system_says_in_training_is_not_hidden(shards, command, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(ResumableEpochLoop, "run_iter", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        command(pretrain, *pretrain_arguments(shards, tmp_path / "run"))


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
        assert command(evaluate, *arguments) == (2, f"error: {message}\n")
    assert not (tmp_path / "x.json").exists()
