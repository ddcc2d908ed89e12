"""`make figure N=3..6`: the runs, then the drawing of what they leave."""

import shlex
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.experiments.drawings import FIGURES, arguments, drawings_at
from pipelines.experiments.paper import TABLES
from pipelines.experiments.scales import DEMO, PAPER
from pipelines.experiments.tabulation import table_runs
from pipelines.experiments.workspace import Workspace
from pipelines.figures import build_parser, main

SMALL = ("--photos", 4, 2, 2, "--pretrain-epochs", 1, "--finetune-epochs", 1, "--device", "cpu")
SPACE = Workspace(Path("space"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *argv: cli.run(main, build_parser(), [str(part) for part in argv])


def test_curves_have_a_line_per_start_and_a_run_per_seed() -> None:
    (drawing,) = drawings_at(FIGURES[3], PAPER)
    words = arguments(drawing, PAPER, [0, 1], SPACE)
    assert words[0] == "curves"
    assert words[-4:] == ["--title", "Fine-tuning on COCO 10 %", "--out", "space/figures/figure3.png"]
    lines = dict(word.split("=", 1) for word in words[1:-4])
    assert list(lines) == ["Img. Sup.", "DenseCL", "SwAV", "MoCo-v2", "SP"]
    known = {str(SPACE.directory(run)) for run in table_runs(TABLES[1], PAPER, [0, 1])}
    for runs in lines.values():
        first, second = runs.split(",")
        assert "seed0" in first
        assert "seed1" in second
        assert {first, second} <= known  # nothing is trained for the figure alone


def test_a_data_set_that_a_scale_lacks_is_not_drawn() -> None:
    assert [drawing.name for drawing in drawings_at(FIGURES[4], PAPER)] == ["figure4-cityscapes", "figure4-ctw1500"]
    (drawing,) = drawings_at(FIGURES[4], DEMO)
    words = arguments(drawing, DEMO, [0], SPACE)
    assert [word.split("=")[0] for word in words[1:4]] == ["Mask R-CNN", "K-Net", "K-Net with SP"]
    assert words[4:6] == ["--title", "Fine-tuning on the demo set"]


def test_results_are_drawn_beside_the_proposals_they_come_from() -> None:
    words = arguments(drawings_at(FIGURES[5], DEMO)[0], DEMO, [2, 3], SPACE)
    assert words[0] == "results"
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--shards"].startswith("space/runs/shards-saliency-")
    assert "knet_lite0-saliency-seed2-" in given["--run"]
    assert given["--out"] == "space/figures/figure5.png"


def test_activations_are_those_after_two_epochs(run, commands, capsys) -> None:
    assert run(6, "--dry-run") == 0
    plan = capsys.readouterr().out
    assert plan.count("--epochs 2 ") == 2
    last = shlex.split(plan.splitlines()[-1])
    assert last[3:5] == ["pipelines.draw", "activations"]
    assert [word.split("=")[0] for word in last[5:7]] == ["Img. Sup.", "SP"]
    assert last[7:9] == ["--dataset", "demo"]
    assert last[9] == "--data-root"
    words = arguments(FIGURES[6].drawings[0], PAPER, [0], SPACE)
    assert [word.split("=")[0] for word in words[1:4]] == ["Img. Sup.", "DenseCL", "SP"]
    assert words[4:6] == ["--dataset", "coco10"]
    assert "--data-root" not in words


def test_a_figures_runs_are_made_before_it_is_drawn(run, commands, capsys) -> None:
    assert run(4, *SMALL) == 0
    modules = [words[0] for words in commands.seen]
    assert modules == ["prepare_data", "finetune", "finetune", "proposals", "pretrain", "finetune", "draw"]
    out = capsys.readouterr().out
    assert "- Left out: Cityscapes." in out
    assert "- Fine-tuning of mask_rcnn_lite0" in out
    assert run(4, *SMALL) == 0
    assert [words[0] for words in commands.seen[7:]] == ["draw"]


def test_a_figure_that_is_not_there_is_one_line_and_2(run, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(7)
    assert "invalid choice: 7" in capsys.readouterr().err
