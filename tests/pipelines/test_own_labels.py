"""Labels of the user's own through the commands, with no code: a tiny model on a few labelme files."""

import json

import pytest
import torch

from pipelines import cli, evaluate, finetune
from pipelines.run_options import add_own_options, own_choices
from stage2_training.evaluation import AP_NAMES
from stage2_training.labels.own import Choices
from tests import miniatures, tiny_knet

TINY = (*tiny_knet.MODEL, *tiny_knet.TEST_PHOTOS)


@pytest.fixture(autouse=True)
def one_thread(all_threads):
    """Tensors this small take longer on several threads."""
    torch.set_num_threads(1)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run a command in an empty working folder: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(module, *argv):
        common = ("--model", "knet_lite0", "--schedule", "finetune_demo", "--device", "cpu", "--workers", "0")
        code = cli.run(module.main, module.build_parser(), [*common, *map(str, argv), "--cfg-options", *TINY])
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


def test_a_folder_of_labelme_files_is_trained_and_evaluated_on(command, tmp_path):
    miniatures.labelme(tmp_path / "my.photos")
    start = ("--dataset", "my.photos", "--init", "scratch", "--epochs", 1)
    code, printed = command(finetune, *start, "--total-batch", 2)
    assert code == 0, printed
    assert "1 of 5 photos are held out for evaluation (--held-out-seed 0)" in printed
    run = tmp_path / "work_dirs" / "finetune" / "my" / "knet_lite0-scratch"
    scores = json.loads((run / "finished.json").read_text())
    assert (run / "iter_2.pth").is_file()  # of the four photos that are not held out

    code, printed = command(finetune, *start, "--total-batch", 2, "--held-out-seed", 1)
    assert code == 2
    assert "holds a run with other labels" in printed.splitlines()[-1]

    out = tmp_path / "scores.json"
    code, printed = command(evaluate, "--dataset", "my.photos", "--checkpoint", run / "iter_2.pth", "--out", out)
    assert code == 0, printed
    again = json.loads(out.read_text())
    assert {name: again[name] for name in AP_NAMES} == {name: scores[name] for name in AP_NAMES}

    code, printed = command(evaluate, "--work-dir", run, "--test-labels", "my.photos")
    assert (code, len(printed.splitlines())) == (2, 1)
    assert "--test-labels and the like go with --model, --dataset and --checkpoint" in printed


def test_what_the_options_say_arrives():
    parser = cli.Parser()
    add_own_options(parser)
    assert own_choices(parser.parse_args([])) == Choices()
    given = ["--test-labels", "a.json", "--classes", "cat", "dog", "--held-out-seed", "3", "--skip-malformed"]
    assert own_choices(parser.parse_args(given)) == Choices("a.json", ("cat", "dog"), 3, True)
