"""`make draw` in this process, on tiny runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage2_training.evaluation.scores import SCORE_NAMES
from tests import miniatures
from tests.pipelines.command import run_command


@pytest.fixture
def command(capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Run it: its exit code, and what it printed."""

    def run(*argv: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run_command("draw", *argv)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


def write_curve(path: Path, *values: float, names: tuple[str, ...] = SCORE_NAMES) -> Path:
    log = path / "20260101_100000/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    lines = [{f"coco/{name}": value for name in names} | {"step": 5 * epoch} for epoch, value in enumerate(values, 1)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curves_of_several_runs_and_seeds(command: Callable, tmp_path: Path) -> None:
    a, b, c = (write_curve(tmp_path / name, 0.1 * n, 0.2 * n) for n, name in enumerate("abc", 1))
    out = tmp_path / "made" / "curves.png"
    code, printed = command("curves", f"ImageNet={a}", f"Saliency Prompt={b},{c}", "--metric", "box_AP", "--out", out)
    assert code == 0, printed
    assert printed.splitlines() == [
        "ImageNet: box_AP 20.0 after epoch 10",
        "Saliency Prompt: box_AP 50.0 (40.0 to 60.0) after epoch 10",
        f"picture: {out}",
    ]
    assert Image.open(out).size[0] > 400
    drawn = json.loads(out.with_suffix(".json").read_text())
    assert drawn["metric"] == "box_AP"
    assert drawn["runs"] == {"ImageNet": [str(a)], "Saliency Prompt": [str(b), str(c)]}
    assert drawn["curves"]["ImageNet"] == [{"epoch": 5, "box_AP": 0.1}, {"epoch": 10, "box_AP": 0.2}]
    assert drawn["curves"]["Saliency Prompt"][0] == pytest.approx(
        {"epoch": 5, "box_AP": 0.25, "lowest": 0.2, "highest": 0.3}
    )


def test_curves_that_cannot_be_drawn_are_one_line(command: Callable, tmp_path: Path) -> None:
    def fails(message: str, *argv: object) -> None:
        code, printed = command("curves", *argv)
        assert (code, printed.startswith("error: ")) == (2, True), printed
        assert message in printed
        assert len(printed.splitlines()) == 1

    old = write_curve(tmp_path / "old", 0.1, names=("AP", "AP_S"))
    sizes = write_curve(tmp_path / "sizes", -1.0)
    out = ("--out", tmp_path / "x.png")
    fails("nothing: no run here that was evaluated", f"a={tmp_path / 'nothing'}", *out)
    fails("--metric mAP: no such score; there are AP, AP50", f"a={old}", "--metric", "mAP", *out)
    fails("old: has no box_AP at every epoch", f"a={old}", "--metric", "box_AP", *out)
    fails("sizes: has no AP_L at every epoch", f"a={sizes}", "--metric", "AP_L", *out)
    fails("two runs of one name", f"a={old}", f"a={sizes}", *out)
    fails("x.pdf: pictures are written as .png", f"a={old}", "--out", tmp_path / "x.pdf")
    later = write_curve(tmp_path / "later")
    (later / "20260101_100000/vis_data/scalars.json").write_text('{"coco/AP": 0.5, "step": 99}\n')
    fails("a: its runs have no epoch in common", f"a={old},{later}", *out)
    fails("write it as NAME=RUN_DIR", old, *out)


def test_activations_of_a_run(
    command: Callable, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "labelled"
    common = ("--dataset", "demo", "--data-root", root, "--device", "cpu", "--workers", 0, "--out", tmp_path / "x.png")
    code, printed = command("activations", f"K-Net={run_dir}", "--count", 3, *common)
    assert code == 0, printed
    numbers = json.loads((tmp_path / "x.json").read_text())
    assert list(numbers) == ["K-Net"]
    assert (numbers["K-Net"]["images"], numbers["K-Net"]["queries"]) == (3, 6)
    assert 0 <= numbers["K-Net"]["overlap"] <= 1
    assert 0 <= numbers["K-Net"]["entropy"] <= 1
    assert numbers["K-Net"]["checkpoint"] == str(run_dir / "iter_1.pth")
    drawn = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    miniatures.labelme(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    runs, mine = (f"a={run_dir}", f"b={run_dir}"), ("--dataset", "mine", "--device", "cpu", "--workers", 0)
    for labels, images in (((), 1), (("--test-labels", "mine"), 5)):
        code, printed = command("activations", *runs, *mine, *labels, "--out", tmp_path / "own.png")
        assert code == 0, printed
        assert printed.count(" images are ") == 1  # labels are read once for all models
        numbers = json.loads((tmp_path / "own.json").read_text())
        assert [numbers[name]["images"] for name in "ab"] == [images, images]
    code, printed = command("activations", f"K-Net={run_dir},{run_dir}", *common)
    assert (code, "K-Net: several runs" in printed) == (2, True)
    (run_dir / "last_checkpoint").unlink()
    code, printed = command("activations", f"K-Net={run_dir}", *common)
    assert (code, printed) == (2, f"error: {run_dir}: has no checkpoint yet\n")


def test_proposals_beside_detections(
    command: Callable,
    run_dir: Path,
    tmp_path: Path,
    write_shards: Callable,
    make_record: Callable,
    rectangles: Callable,
) -> None:
    masks = rectangles([(4, 4, 30, 40)], 64, 64)
    shards = write_shards([[make_record(number, f"{number}.png", masks, np.zeros((1, 4))) for number in range(3)]])
    common = ("--shards", shards.directory, "--work-dir", run_dir, "--device", "cpu", "--out", tmp_path / "x.png")
    code, printed = command("results", "--count", 2, "--score", 0, *common)
    assert code == 0, printed
    assert "2 images, 12 detections from score 0.0 up" in printed
    everything = np.asarray(Image.open(tmp_path / "x.png"))
    code, printed = command("results", "--count", 2, "--score", 1, *common)
    assert "2 images, 0 detections" in printed
    none = np.asarray(Image.open(tmp_path / "x.png"))
    assert everything.shape == none.shape
    differs = (everything != none).any(axis=(0, 2)).nonzero()[0] // (everything.shape[1] // 4)
    assert set(differs) == {1, 3}  # of the four columns those to the right of proposals

    for wrong in ("1.5", "-0.1", "nan", "high"):
        assert command("results", "--score", wrong, *common) == (
            2,
            f"error: --score '{wrong}': must be between 0 and 1\n",
        )

    (tmp_path / "images" / "0.png").unlink()
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "2.png").unlink()
    code, printed = command("results", *common)
    assert code == 2
    assert "no sampled image was found unchanged under" in printed.splitlines()[-1]
