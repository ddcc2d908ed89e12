"""The three training commands, one after the other, on a tiny model and a few tiny images."""

import json
import re
from pathlib import Path

import torch

from stage1_proposals.analysis.clusters import cluster_shards
from stage1_proposals.common.files import exclusive_lock
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.evaluation import coco_metric
from stage2_training.evaluation.scores import AP_NAMES, SCORE_NAMES
from stage2_training.runs import initial_weights as initialisation
from stage2_training.runs.provenance import CommandRecord
from stage2_training.runs.train import initial_model
from stage2_training.runs.work_dir import WorkDir
from tests import tiny_knet
from tests.pipelines.training.commands import SMALL, finetune_arguments, pretrain_arguments


def test_the_whole_of_stage_2(shards, dataset, command, tmp_path):
    pre, fine = tmp_path / "pre", tmp_path / "fine"

    code, printed = command("pretrain", *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert code == 0, printed
    assert re.search(r"epoch 2/2  step 3/3  loss \d", printed)
    assert "WARNING" not in printed
    assert "Could not import" not in printed
    assert WorkDir(pre).latest_checkpoint() == pre / "iter_6.pth"
    assert {path.name for path in pre.glob("iter_*.pth")} == {"iter_4.pth", "iter_6.pth"}

    before = {path: path.stat().st_mtime_ns for path in pre.rglob("*.pth")}
    code, printed = command("pretrain", *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert code == 0
    assert "finished already" in printed
    assert {path: path.stat().st_mtime_ns for path in pre.rglob("*.pth")} == before

    code, printed = command(
        "pretrain", *pretrain_arguments(shards, pre, "--epochs", "2", "--saliency-prompt", "matching=none")
    )
    assert code == 2
    assert "model.saliency_prompt.matching is 'cosine' there, 'none' now" in printed
    assert len(printed.strip().splitlines()) == 1

    with exclusive_lock(pre):
        code, printed = command("pretrain", *pretrain_arguments(shards, pre, "--epochs", "2"))
    assert (code, printed) == (2, f"error: {pre}: another run is writing there\n")

    # The first command alone started something; the others found it finished, or were refused.
    (start,) = CommandRecord.read_all(pre)
    typed = [str(word) for word in pretrain_arguments(shards, pre, "--epochs", "2")]
    assert start.argv == ["python", "-m", "pipelines", "pretrain", *typed]
    assert start.device == "cpu"

    code, printed = command("finetune", *finetune_arguments(dataset, fine, "--checkpoint", pre / "iter_6.pth"))
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

    code, printed = command("evaluate", "--work-dir", fine, "--device", "cpu")
    assert code == 0, printed
    metrics = json.loads((fine / "metrics.json").read_text())
    assert {name: metrics[name] for name in SCORE_NAMES} == {name: curve[-1][name] for name in SCORE_NAMES}
    assert all(name in printed for name in (*AP_NAMES, "masks", "boxes"))

    arguments = ("--model", "knet_lite0", "--dataset", dataset, "--device", "cpu", "--out", tmp_path / "again.json")
    images = tiny_knet.TEST_IMAGES
    code, printed = command("evaluate", *arguments, "--checkpoint", fine, "--cfg-options", *tiny_knet.MODEL, *images)
    assert code == 0, printed
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["checkpoint"] == str(fine / "best_4.pth")
    assert {name: again[name] for name in SCORE_NAMES} == {name: metrics[name] for name in SCORE_NAMES}

    # Without classes, any run on any images.
    code, printed = command("evaluate", "--work-dir", fine, "--class-agnostic", "--device", "cpu")
    assert code == 0, printed
    merged = json.loads((fine / "class_agnostic.json").read_text())
    assert {name: merged[name] for name in SCORE_NAMES} == {name: metrics[name] for name in SCORE_NAMES}  # one class
    arguments = ("--work-dir", pre, "--dataset", dataset, "--device", "cpu", "--workers", 0)
    code, printed = command("evaluate", *arguments, "--class-agnostic", "--out", tmp_path / "pre.json")
    assert code == 0, printed
    merged = json.loads((tmp_path / "pre.json").read_text())
    assert merged.keys() == {*SCORE_NAMES, "AR@20", "box_AR@20", "checkpoint"}
    code, printed = command("evaluate", *arguments)
    assert (code, "--dataset with --work-dir needs --class-agnostic" in printed) == (2, True)
    code, printed = command("evaluate", "--work-dir", pre, "--model", "knet_lite0", "--device", "cpu")
    assert (code, "--model and --schedule do not go with --work-dir" in printed) == (2, True)
    code, printed = command("evaluate", "--work-dir", pre, "--class-agnostic")
    assert (code, "pre is a pre-training run, which has no labels" in printed) == (2, True)


def test_clusters_are_pretrained_on_and_their_classifiers_not_transferred(shards, dataset, command, tmp_path):
    pre, fine = tmp_path / "pre", tmp_path / "fine"
    arguments = pretrain_arguments(shards, pre, "--epochs", "1", "--pseudo-classes")
    code, printed = command("pretrain", *arguments)
    assert (code, len(printed.strip().splitlines())) == (2, 1)
    assert "no clusters; `make cluster SHARDS=" in printed

    cluster_shards(shards, 3, seed=0)
    code, printed = command("pretrain", *arguments)
    assert code == 0, printed
    pretrained = torch.load(pre / "iter_3.pth")
    assert pretrained["state_dict"]["roi_head.mask_head.1.fc_cls.weight"].shape == (3, 32)
    code, printed = command("pretrain", *pretrain_arguments(shards, pre, "--epochs", "1"))
    assert code == 2
    assert "holds a run with other pseudo labels: pseudo_labels.clusters." in printed

    three = dataset.with_name("three.py")  # as many classes as clusters, which mean something else
    three.write_text(dataset.read_text().replace("('text',)", "('text', 'b', 'c')"))
    for labels in (dataset, three):
        config = finetuning_config("knet_lite0", str(labels), overrides=Overrides(cfg_options=tiny_knet.MODEL))
        target = initial_model(config)
        start = initialisation.pretrained("knet_lite0", "KNet", str(pre / "iter_3.pth"))
        match = start.match(target)
        assert sum("fc_cls" in name or "conv_seg" in name for name in match.missing) == 6
        assert "roi_head.mask_head.1.fc_mask.weight" in match.found
    arguments = finetune_arguments(dataset, fine, "--checkpoint", pre / "iter_3.pth")
    code, printed = command("finetune", *arguments)
    assert code == 0, printed


def test_without_prompts_the_plain_detector_is_pretrained_in_a_directory_of_its_own(
    shards, dataset, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = pretrain_arguments(shards, "x", "--epochs", "1", "--prompts", "off")
    place = arguments.index("--work-dir")
    del arguments[place : place + 2]
    code, printed = command("pretrain", *arguments)
    assert code == 0, printed
    chosen = r"\(cpu, schedule pretrain_demo, images up to \d+ x \d+\)"
    assert re.search(rf"Pre-training knet_lite0 without prompts on 5 images {chosen}", printed)
    pre = Path("work_dirs/pretrain/knet_lite0-pseudo")
    pretrained = torch.load(pre / "iter_3.pth")["state_dict"]
    assert not [name for name in pretrained if name.startswith("kernel_supervision")]

    code, printed = command(
        "finetune", *finetune_arguments(dataset, tmp_path / "fine", "--init", "pseudo", "--epochs", 1)
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
    code, printed = command("finetune", *again)
    assert code == 2
    assert "fine holds a run with other initial weights: initialisation.sha256 is " in printed
    assert printed.endswith("or another --work-dir (WORK_DIR=) to begin a second run\n")

    code, printed = command("pretrain", *arguments[: -len(SMALL) - 1], "--saliency-prompt", "level=0")
    assert (code, printed) == (
        2,
        "error: --saliency-prompt goes with --prompts on: without prompts it would change nothing\n",
    )


def test_what_a_run_makes_of_its_prompts_is_measured(shards, command, tmp_path):
    run = tmp_path / "run"
    assert command("pretrain", *pretrain_arguments(shards, run, "--epochs", "1"))[0] == 0
    code, printed = command("bench", "prompts", "--work-dir", run, "--batches", 2, "--device", "cpu")
    assert code == 0, printed
    assert f"{run / 'iter_3.pth'} on 4 images" in printed
    assert re.search(r"^loss_rpn_dice( +\d+\.\d{3}){4}$", printed, re.MULTILINE)
    assert "The median length of a prompt is 1 times that of the query that it is added to." in printed

    plain = pretrain_arguments(shards, tmp_path / "plain", "--epochs", "1", "--prompts", "off")
    assert command("pretrain", *plain)[0] == 0
    for wrong, message in (
        (["--work-dir", tmp_path / "plain"], "plain: a run without prompts"),
        (["--work-dir", run, "--checkpoint", "gone.pth"], "gone.pth: no such checkpoint"),
    ):
        code, printed = command("bench", "prompts", *wrong)
        assert (code, len(printed.splitlines())) == (2, 1), printed
        assert printed.endswith(f"{message}\n")


def test_the_best_checkpoint_is_evaluated_and_patience_ends_a_run(dataset, command, tmp_path, monkeypatch):
    """The scores of the first evaluation are raised, and the run is to go on for four epochs."""
    score = coco_metric.score_detections
    calls = []

    def raised(*arguments):
        calls.append(1)
        return {**score(*arguments), "AP": 0.9 if len(calls) == 1 else 0.5}

    fine = tmp_path / "fine"
    with monkeypatch.context() as patched:
        patched.setattr(coco_metric, "score_detections", raised)
        arguments = finetune_arguments(dataset, fine, "--init", "scratch", "--epochs", 4, "--patience", 2)
        code, printed = command("finetune", *arguments, "train_cfg.val_interval=1")
    assert code == 0, printed
    assert (
        "4 training images: 4 epochs of 2 steps, 2 of them for warm-up; evaluated every epoch; augmented by flip, "
        in printed
    )
    assert "Ended after epoch 3 of 4: no better in 2 evaluations (--patience)" in printed
    assert f"Best: {fine / 'best_2.pth'}, after epoch 1; evaluate" in printed
    result = json.loads((fine / "finished.json").read_text())
    assert (result["epoch"], result["AP"], result["best_AP"], result["best_epoch"]) == (3, 0.5, 0.9, 1)
    assert result["checkpoint"] == str(fine / "iter_6.pth")
    for words, name in (((), "best_2.pth"), (("--last",), "iter_6.pth")):
        code, printed = command("evaluate", "--work-dir", fine, "--device", "cpu", *words)
        assert code == 0, printed
        assert json.loads((fine / "metrics.json").read_text())["checkpoint"] == str(fine / name)
