"""Custom datasets through the commands, with no code: a tiny model on a few labelme files."""

import json
from pathlib import Path

import numpy as np
import pytest

from stage2_training.config.compose import pretraining_config
from stage2_training.config.overrides import Overrides
from stage2_training.evaluation.scores import AP_NAMES
from stage2_training.runs import train as training
from tests import miniatures, tiny_knet
from tests.pipelines.command import run_command

TINY = ("--cfg-options", *tiny_knet.MODEL, *tiny_knet.TEST_IMAGES)
MODEL = ("--model", "knet_lite0", "--schedule", "finetune_demo")


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run a command in an empty working folder: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, *argv):
        code = run_command(name, "--device", "cpu", "--workers", "0", *argv)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


def test_a_folder_of_labelme_files_is_trained_and_evaluated_on(command, tmp_path):
    miniatures.labelme(tmp_path / "my.images")
    start = (*MODEL, "--dataset", "my.images", "--init", "scratch", "--epochs", 1, "--total-batch", 2)
    code, printed = command("finetune", *start, *TINY)
    assert code == 0, printed
    assert "1 of 5 images are held out for evaluation (--held-out-seed 0)" in printed
    run = tmp_path / "work_dirs" / "finetune" / "my" / "knet_lite0-scratch"
    scores = json.loads((run / "finished.json").read_text())
    assert (run / "iter_2.pth").is_file()  # of the four images that are not held out

    code, printed = command("finetune", *start, "--held-out-seed", 1, *TINY)
    assert code == 2
    assert "holds a run with other labels" in printed.splitlines()[-1]

    out = tmp_path / "scores.json"
    given = ("--dataset", "my.images", "--checkpoint", run / "iter_2.pth", "--out", out)
    code, printed = command("evaluate", *MODEL, *given, *TINY)
    assert code == 0, printed
    again = json.loads(out.read_text())
    assert {name: again[name] for name in AP_NAMES} == {name: scores[name] for name in AP_NAMES}

    code, printed = command("evaluate", "--work-dir", run, "--test-labels", "my.images")
    assert (code, len(printed.splitlines())) == (2, 1)
    assert (
        "--test-labels and other options of custom datasets need --dataset: the run's config sets its images" in printed
    )


def test_a_run_in_tiles_trains_is_evaluated_and_predicts_in_tiles(command, tmp_path):
    miniatures.labelme(tmp_path / "mine")
    start = (*MODEL, "--dataset", "mine", "--init", "scratch", "--epochs", 1, "--tiles", 32, "--image-size", 64)
    code, printed = command("finetune", *start, "--cfg-options", *tiny_knet.MODEL)
    assert code == 0, printed
    assert "tiles of 32 x 32 pixels of the image, as images up to 64 x 64" in printed
    run = tmp_path / "work_dirs" / "finetune" / "mine" / "knet_lite0-scratch"
    scores = json.loads((run / "finished.json").read_text())
    code, printed = command("evaluate", "--work-dir", run)
    assert code == 0, printed
    again = json.loads((run / "metrics.json").read_text())
    assert {name: again[name] for name in AP_NAMES} == {name: scores[name] for name in AP_NAMES}
    images = ("--images", "mine", "--work-dir", run, "--format", "coco", "--score", 0)
    for given, seen in (((), ", in tiles of 32 pixels ->"), (("--tiles", "off"), "cpu ->")):
        code, printed = command("predict", *images, *given, "--out", "-".join(["found", *given]))
        assert code == 0, printed
        assert seen in printed


@pytest.fixture
def pretraining(tmp_path, write_shards, make_record, rectangles):
    """A pre-training run of a tiny K-Net that has done no step."""
    masks = rectangles([(4, 4, 30, 40)], 48, 64)
    shards = write_shards([[make_record(1, "1.png", masks, np.zeros((1, 320)))]], {"feature_dim": 320})
    options = (*tiny_knet.MODEL, *tiny_knet.TRAINING_IMAGES)
    config = pretraining_config("knet_lite0", "pretrain_demo", shards, overrides=Overrides(cfg_options=options))
    return tiny_knet.untrained_run(tmp_path / "pre", config)


def test_a_pretrained_model_is_judged_on_the_images_that_the_options_say(command, pretraining, tmp_path, monkeypatch):
    miniatures.labelme(tmp_path / "mine")
    miniatures.labelme(tmp_path / "others", images=2)
    common = ("--work-dir", pretraining, "--class-agnostic", "--dataset", "mine")
    code, printed = command("evaluate", *common, "--test-labels", "mine")
    assert code == 0, printed
    assert printed.startswith("5 of the 5 test images are among those of mine\n")
    assert set(AP_NAMES) < set(json.loads((pretraining / "class_agnostic.json").read_text()))

    def judged(*options):
        """The images that are evaluated, and the classes of their objects."""
        configs = []
        with monkeypatch.context() as instead:
            instead.setattr(training, "evaluate", lambda config, *_: configs.append(config) or {"AP": 0.5})
            code, printed = command("evaluate", *common, *options)
        assert code == 0, printed
        (images,) = [config.test_dataloader.dataset for config in configs]
        coco = json.loads(Path(images.ann_file).read_text())
        names = {each["id"]: each["name"] for each in coco["categories"]}
        files = {(Path(images.data_root) / each["file_name"]).relative_to(tmp_path) for each in coco["images"]}
        return {str(file) for file in files}, {names[each["category_id"]] for each in coco["annotations"]}

    everything = {f"mine/images/{number}.png" for number in range(5)}
    assert judged("--test-labels", "mine") == (everything, {"cat", "dog"})
    assert judged("--test-labels", "others")[0] == {"others/images/0.png", "others/images/1.png"}
    assert judged("--test-labels", "mine", "--classes", "dog") == (everything, {"dog"})
    held_out = {str(seed): judged("--held-out-seed", str(seed))[0] for seed in range(3)}
    assert all(len(images) == 1 and images < everything for images in held_out.values())
    assert len(set().union(*held_out.values())) > 1
    assert judged()[0] == held_out["0"]
    (tmp_path / "mine" / "images" / "3.png").unlink()
    assert judged("--test-labels", "mine", "--skip-malformed")[0] == everything - {"mine/images/3.png"}


def test_options_of_ones_own_labels_do_not_go_with_a_published_set(command, pretraining):
    common = ("--work-dir", pretraining, "--class-agnostic", "--dataset", "ctw1500")
    code, printed = command("evaluate", *common, "--held-out-seed", 1)
    assert (code, printed.splitlines()) == (
        2,
        [
            "error: --test-labels, --classes, --held-out-seed and --skip-malformed go with labels of your own, "
            "not ctw1500"
        ],
    )
