"""`figure 3..6`: the runs, then the drawings of what they leave."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.experiments.paper import FIGURES, TABLES
from pipelines.experiments.plan import Plan
from pipelines.experiments.record import ExperimentRecord
from pipelines.experiments.reproduce import drawings
from pipelines.experiments.scales import DEMO, PAPER
from stage2_training.labels.ctw1500 import SPLITS
from tests.pipelines.command import run_command

SMALL = ("--count", 4, 2, 2, "--pretrain-epochs", 1, "--finetune-epochs", 1, "--device", "cpu")
ON_DEMO, ON_PAPER = (Plan(scale, Path("space")) for scale in (DEMO, PAPER))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command("figure", *words)


def test_curves_have_a_line_per_start_and_a_run_per_seed() -> None:
    draw, *words = drawings(FIGURES[3], ON_PAPER, [0, 1])["figure3"]
    assert (draw, words[0]) == ("draw", "curves")
    assert words[-4:] == ["--title", "Fine-tuning on COCO 10 %", "--out", "space/figures/figure3.png"]
    lines = dict(word.split("=", 1) for word in words[1:-4])
    assert list(lines) == ["Img. Sup.", "DenseCL", "SwAV", "MoCo-v2", "SP"]
    known = {str(run.directory) for run in ON_PAPER.runs(TABLES[1], [0, 1])}
    for runs in lines.values():
        first, second = runs.split(",")
        assert "seed0" in first
        assert "seed1" in second
        assert {first, second} <= known  # nothing is trained for the figure alone


def test_a_data_set_that_a_scale_lacks_is_not_drawn() -> None:
    assert list(drawings(FIGURES[4], ON_PAPER, [0])) == ["figure4-cityscapes", "figure4-ctw1500"]
    ((name, words),) = drawings(FIGURES[4], ON_DEMO, [0]).items()
    assert name == "figure4-ctw1500"
    assert [word.split("=")[0] for word in words[2:5]] == ["Mask R-CNN, Img. Sup.", "K-Net, Img. Sup.", "K-Net, SP"]
    assert words[5:7] == ["--title", "Fine-tuning on the demo set"]


def test_results_are_drawn_beside_the_proposals_they_come_from() -> None:
    draw, kind, *words = drawings(FIGURES[5], ON_DEMO, [2, 3])["figure5"]
    assert (draw, kind) == ("draw", "results")
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--shards"] == str(ON_DEMO.shards("saliency", 2, shown=True).directory)
    assert "/shards-saliency-test-" in given["--shards"]
    assert "knet_lite0-saliency-seed2-" in given["--work-dir"]
    assert given["--out"] == "space/figures/figure5.png"
    words = drawings(FIGURES[5], ON_PAPER, [2, 3])["figure5"]
    assert words[3] == str(ON_PAPER.shards("saliency", 2).directory)


def test_the_demos_proposals_are_of_images_with_text(run, capsys) -> None:
    assert run(5, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    _, command = next(pair for pair in pairwise(lines) if ". shards-saliency-test-" in pair[0])
    folder, images = SPLITS["test"].images, shlex.split(command)[6]
    assert images.endswith(f"/ctw1500/{folder}")
    assert sum("pipelines proposals" in line for line in lines) == 2


def test_activations_are_those_after_two_epochs(run, commands, capsys) -> None:
    assert run(6, "--dry-run") == 0
    plan = capsys.readouterr().out
    assert plan.count("--epochs 2 ") == 2
    last = shlex.split(plan.splitlines()[-1])
    assert last[3:6] == ["pipelines", "draw", "activations"]
    assert [word.split("=")[0] for word in last[6:8]] == ["Img. Sup.", "SP"]
    assert last[8:10] == ["--dataset", "demo"]
    assert last[10] == "--data-root"
    words = drawings(FIGURES[6], ON_PAPER, [0])["figure6"]
    assert [word.split("=")[0] for word in words[2:5]] == ["Img. Sup.", "DenseCL", "SP"]
    assert words[5:7] == ["--dataset", "coco10"]
    assert "--data-root" not in words


def test_a_figures_runs_are_made_before_it_is_drawn(run, commands, capsys) -> None:
    assert run(4, *SMALL) == 0
    names = [words[0] for words in commands.seen]
    assert names == ["data", "finetune", "finetune", "proposals", "pretrain", "finetune", "draw"]
    out = capsys.readouterr().out
    assert "- Left out: Cityscapes, which would be the demo set again." in out
    assert "- Sizes that are not the paper's: " in out
    assert run(4, *SMALL) == 0
    assert [words[0] for words in commands.seen[7:]] == ["draw"]


def test_what_a_figure_shows_is_written_beside_it(run, commands, tmp_path: Path, capsys) -> None:
    assert run(4, *SMALL, "--seeds", 0, 1) == 0
    folder = tmp_path / "work_dirs" / "experiments" / "demo"
    record = json.loads((folder / "figures" / "figure4.record.json").read_text())
    assert ExperimentRecord.read(folder / "figures" / "figure4.record.json").text(markdown=True) == (
        (folder / "figures" / "figure4.md").read_text()
    )
    assert (record["number"], record["scale"], record["pictures"]) == (4, "demo", ["figure4-ctw1500.png"])
    assert record["notes"][0] == (
        "Lines are means, bands go from the lowest run to the highest, over seeds 0, 1; images and labels are the same "
        "for all seeds."
    )
    assert [shlex.split(command)[3] for command in record["commands"]] == [words[0] for words in commands.seen]
    assert all((folder / name).is_dir() for name in record["runs"])
    out, page = capsys.readouterr().out, (folder / "figures" / "figure4.md").read_text()
    assert page.startswith(
        f"## Figure 4, at demo scale: {FIGURES[4].title}\n\n![figure4-ctw1500](figure4-ctw1500.png)\n"
    )
    for note in record["notes"]:
        assert f"- {note}\n" in out
        assert f"- {note}\n" in page
    assert record["commands"][-1] in page
    assert record["machine"] in page


def test_of_pictures_of_single_runs_the_first_seed_is_said(run, commands, tmp_path: Path, capsys) -> None:
    assert run(6, *SMALL, "--seeds", 3, 1) == 0
    out = capsys.readouterr().out
    assert "- One run each, with seed 3, the first of 3, 1: the spread is unknown" in out
    assert "- Fine-tuned for two epochs at most, the paper's number. " in out
    assert "- Epochs of fine-tuning: at most 1 (the paper: 24 to 96, by dataset)." in out
    assert not any("seed1" in word for words in commands.seen for word in words)
    assert run(5, *SMALL) == 0
    out = capsys.readouterr().out
    assert "- One run each, with seed 0: the spread is unknown" in out
    assert "- The images are test images: the unlabeled ones show no text." in out


def test_a_figure_that_is_not_there_is_one_line_and_2(run, capsys) -> None:
    assert run(7) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such command '7'; use one of 3, 4, 5, 6." in line
