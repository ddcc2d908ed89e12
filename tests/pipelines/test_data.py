import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from pipelines.demo_data import demo_set
from tests import miniatures
from tests.pipelines.command import run_command

POLYGON = "2,2,4,2,6,2,8,2,10,2,12,2,14,2,14,8,12,8,10,8,8,8,6,8,4,8,2,8"


def run(*argv):
    return run_command("data", *argv)


@dataclass(frozen=True)
class Few(demo_set.Counts):
    unlabeled: int = 1
    train: int = 1
    test: int = 1


def test_the_demo_set_is_written_once_and_summed_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_set, "Counts", Few)
    out = tmp_path / "demo"
    assert run("--dataset", "demo", "--data-root", out) == 0
    printed = capsys.readouterr().out
    assert f"{out / 'unlabeled'}: 1 unlabeled images" in printed
    assert f"{out / 'ctw1500' / 'annotations' / 'train.json'}: 1 image, " in printed
    assert run("--dataset", "demo", "--data-root", out) == 0
    assert capsys.readouterr().out.splitlines() == [f"{out} is complete; nothing to do", *printed.splitlines()]


def test_each_data_set_has_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_set, "Counts", Few)
    assert run("--dataset", "demo") == 0
    assert (tmp_path / "data" / "demo" / "complete.json").is_file()
    assert run("--dataset", "ctw1500") == 2
    assert "data/ctw1500/train_images is missing" in capsys.readouterr().err


def test_a_negative_seed_is_one_clear_line(tmp_path, capsys):
    assert run("--dataset", "demo", "--data-root", tmp_path / "demo", "--seed", -1) == 2
    assert capsys.readouterr().err == "error: Invalid value for '--seed': -1 is not in the range x>=0.\n"


@pytest.fixture(scope="module")
def ctw1500_root(tmp_path_factory):
    """A folder with the file names, numbers and formats of the whole CTW1500, and tiny images."""
    root = tmp_path_factory.mktemp("ctw1500")
    for folder in ("train_images", "test_images", "ctw1500_train_labels", "gt_ctw1500"):
        (root / folder).mkdir()
    Image.new("RGB", (20, 12)).save(root / "image.jpg")
    image = (root / "image.jpg").read_bytes()
    xml = f"<Annotations><image file='x'><box><label>A</label><segs>{POLYGON}</segs></box></image></Annotations>"
    for number in range(1, 1001):
        (root / "train_images" / f"{number:04d}.jpg").write_bytes(image)
        (root / "ctw1500_train_labels" / f"{number:04d}.xml").write_text(xml)
    for number in range(1001, 1501):
        (root / "test_images" / f"{number}.jpg").write_bytes(image)
        (root / "gt_ctw1500" / f"000{number}.txt").write_text(f"{POLYGON},####A\n{POLYGON},#######\n")
    return root


def test_ctw1500_is_counted_and_converted(ctw1500_root, capsys):
    assert run("--dataset", "ctw1500", "--data-root", ctw1500_root) == 0
    annotations = ctw1500_root / "annotations"
    assert capsys.readouterr().out.splitlines() == [
        f"{annotations / 'train.json'}: 1,000 images, 1,000 objects of 1 class",
        f"  labels of 12 images drawn: {annotations / 'train_check.png'}",
        f"{annotations / 'test.json'}: 500 images, 1,000 objects of 1 class, 500 of them ignored",
        f"  labels of 12 images drawn: {annotations / 'test_check.png'}",
        "",
        "class  train objects  train images  test objects  test images",
        "text           1,000         1,000           500          500",
    ]
    assert len(json.loads((annotations / "train.json").read_text())["images"]) == 1000


@pytest.mark.parametrize("missing", ["train_images/0500.jpg", "gt_ctw1500/0001500.txt"])
def test_a_gap_in_ctw1500_is_named_with_where_to_get_it(ctw1500_root, missing, capsys):
    path = ctw1500_root / missing
    kept = path.rename(ctw1500_root / "kept")
    try:
        assert run("--dataset", "ctw1500", "--data-root", ctw1500_root) == 2
    finally:
        kept.rename(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path.parent) in line
    assert path.name in line
    assert "lacks 1 of" in line
    assert "https://github.com/Yuliang-Liu/Curve-Text-Detector" in line


def test_a_missing_folder_is_one_clear_line(tmp_path, capsys):
    assert run("--dataset", "ctw1500", "--data-root", tmp_path / "nowhere") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train_images is missing" in line
    assert "Curve-Text-Detector" in line


def test_a_part_of_ctw1500_is_taken_when_asked_and_noted(tmp_path, capsys):
    root = miniatures.ctw1500(tmp_path / "ctw")
    assert run("--dataset", "ctw1500", "--data-root", root) == 2
    assert "train_images lacks 998 of its 1,000 files" in capsys.readouterr().err
    assert run("--dataset", "ctw1500", "--data-root", root, "--partial", "--sheet", 0) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "  partial: 2 of 1,000 images"
    assert not list(root.rglob("*.png"))
    assert json.loads((root / "annotations" / "test.json").read_text())["info"]["partial"] == {
        "found": 1,
        "expected": 500,
    }
    miniatures.image(1, root / "train_images" / "1001.jpg")  # one too many
    (root / "ctw1500_train_labels" / "0002.xml").write_text("<Annotations>")
    assert run("--dataset", "ctw1500", "--data-root", root, "--partial") == 2
    assert "0002.xml, line 1: malformed CTW1500 label" in capsys.readouterr().err
    assert run("--dataset", "ctw1500", "--data-root", root, "--partial", "--skip-malformed") == 0
    printed = capsys.readouterr().out
    assert printed.count("left out: ") == 2
    assert "0002.xml, line 1: malformed CTW1500 label: not well-formed XML (no element found)" in printed


def test_an_image_too_many_is_refused(ctw1500_root, capsys):
    extra = ctw1500_root / "train_images" / "1001.jpg"
    extra.touch()
    try:
        assert run("--dataset", "ctw1500", "--data-root", ctw1500_root) == 2
    finally:
        extra.unlink()
    assert "train_images: 1,001 images, not the 1,000 it should have" in capsys.readouterr().err


def test_cityscapes_is_converted_and_drawn(tmp_path, capsys):
    root = miniatures.cityscapes(tmp_path / "cityscapes")
    assert run("--dataset", "cityscapes", "--data-root", root) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "leftImg8bit/train: 4 images, not the 2,975 it should have: get it at https://www.cityscapes" in line
    assert run("--dataset", "cityscapes", "--data-root", root, "--partial") == 0
    annotations = root / "annotations"
    printed = capsys.readouterr().out.splitlines()
    assert printed[:6] == [
        f"{annotations / 'train.json'}: 4 images, 16 objects of 8 classes, 4 of them ignored",
        "  partial: 4 of 2,975 images",
        f"  labels of 4 images drawn: {annotations / 'train_check.png'}",
        f"{annotations / 'val.json'}: 4 images, 16 objects of 8 classes, 4 of them ignored",
        "  partial: 4 of 500 images",
        f"  labels of 4 images drawn: {annotations / 'val_check.png'}",
    ]
    heading, *rows = printed[7:]
    assert heading.split() == ["class", "train", "objects", "train", "images", "val", "objects", "val", "images"]
    table = {name: [int(number) for number in numbers] for name, *numbers in map(str.split, rows)}
    assert list(table) == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert [name for name in table if any(table[name])] == ["rider", "car"]
    assert table["car"] == [8, 4, 8, 4]
    assert table["person"] == [0, 0, 0, 0]  # a group is ignored
    assert Image.open(annotations / "val_check.png").width > 1600


def test_coco_is_drawn_from_and_the_ids_kept(tmp_path, capsys):
    root = miniatures.coco(tmp_path / "coco", train=20, unlabeled=3)
    assert run("--dataset", "coco5", "--data-root", root) == 2
    assert "val2017: 2 images, not the 5,000 it should have: get it at https://cocodataset" in capsys.readouterr().err
    ids = {}
    for name in ("coco10", "coco5"):
        assert run("--dataset", name, "--data-root", root, "--partial", "--seed", 3) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == f"{root / 'annotations' / f'{name}_ids.txt'}: the ids of its images, drawn by seed 3"
        printed, table = printed[: printed.index("")], printed[printed.index("") + 1 :]
        assert printed[-1] == f"{root / 'unlabeled2017'}: 3 of 123,403 images for stage 1"
        assert len(table) == 81
        assert f"{root / 'annotations' / 'instances_val2017.json'}: 2 images" in "\n".join(printed)
        ids[name] = (root / "annotations" / f"{name}_ids.txt").read_text().split()
    assert len(ids["coco10"]) == 2
    assert set(ids["coco5"]) < set(ids["coco10"])


def test_labels_of_ones_own_are_checked_divided_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    miniatures.coco(tmp_path / "set")
    (tmp_path / "set" / "train2017").rename(tmp_path / "images")
    labels = tmp_path / "set" / "annotations" / "instances_train2017.json"
    assert run("--dataset", labels) == 2
    assert "none of its 12 images is under" in capsys.readouterr().err
    assert run("--dataset", labels, "--data-root", "images", "--classes", "person") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 of 12 images are held out for evaluation (--held-out-seed 0)"
    assert "10 images" in printed[1]
    assert printed[1].endswith("of 1 class, 1 of them ignored")
    assert len(list(tmp_path.glob("data/own/instances_train2017-*/*_check.png"))) == 2
    assert printed[-2].split() == ["class", "train", "objects", "train", "images", "test", "objects", "test", "images"]
    assert printed[-1].split()[0] == "person"
    miniatures.labelme(tmp_path / "mine")
    assert run("--dataset", "mine") == 0
    assert "4 images, 8 objects of 2 classes" in capsys.readouterr().out


def test_images_left_out_are_told_once_and_their_number_if_they_are_many(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    miniatures.labelme(tmp_path / "mine", images=28)
    for number in range(23):
        (tmp_path / "mine" / "images" / f"{number}.png").unlink()
    assert run("--dataset", "mine", "--skip-malformed", "--sheet", 0) == 0
    printed = capsys.readouterr().out
    assert printed.count("is missing") == 20
    assert printed.count("left out: 23 images in all") == 1
    assert "test.json: 1 image, 2 objects of 2 classes\n" in printed
    (train,) = tmp_path.glob("data/own/mine-*/train.json")
    assert len(json.loads(train.read_text())["info"]["skipped"]) == 23


def test_what_is_ignored_of_every_class_counts_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    miniatures.labelme(tmp_path / "mine")
    for number in range(5):
        path = tmp_path / "mine" / "labels" / f"{number}.json"
        document = json.loads(path.read_text())
        document["shapes"].append(miniatures.shape("rectangle", "__ignore__", [[1, 1], [9, 9]]))
        path.write_text(json.dumps(document))
    assert run("--dataset", "mine", "--sheet", 0) == 0
    assert "train.json: 4 images, 12 objects of 2 classes, 4 of them ignored\n" in capsys.readouterr().out


def test_a_training_set_without_an_object_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    miniatures.coco(tmp_path / "set")
    test = tmp_path / "set" / "annotations" / "instances_val2017.json"
    train = tmp_path / "set" / "annotations" / "instances_train2017.json"
    train.write_text(json.dumps(json.loads(train.read_text()) | {"annotations": []}))
    assert run("--dataset", train, "--test-labels", test, "--sheet", 0) == 2
    assert f"{train}: nothing to train on; its images have no object of 'person', " in capsys.readouterr().err


def test_other_names_are_one_clear_line(capsys):
    assert run("--dataset", "ctw1500", "--classes", "text") == 2
    assert "--classes and --held-out-seed go with custom datasets, not ctw1500" in capsys.readouterr().err
    assert run("--dataset", "ctw") == 2
    assert "no dataset 'ctw': pass one of demo, ctw1500, cityscapes, coco10, coco5, or the path" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("data --dataset annotations/instances_train2017.json --sheet 0", 0, ""),
        ("evaluate --work-dir nowhere", 2, "nowhere: no run here (no config.py)"),
        ("evaluate --model knet_lite0 --checkpoint nowhere.pth", 2, "nowhere.pth: no such checkpoint"),
        ("evaluate --checkpoint . --model nosuch", 2, "no model 'nosuch': pass one of "),
        ("evaluate --checkpoint . --dataset nosuch", 2, "no dataset 'nosuch': pass one of "),
        ("finetune --model nosuch", 2, "no model 'nosuch': pass one of "),
        ("finetune --dataset nosuch", 2, "no dataset 'nosuch': pass one of "),
        ("finetune --schedule nosuch", 2, "no schedule 'nosuch': pass one of "),
        ("proposals --images .", 2, "Ray at ray://127.0.0.1:1: cannot be reached or started ("),
    ],
)
def test_labels_and_names_are_refused_without_the_libraries_of_training(tmp_path, line, code, message):
    """PyTorch alone takes seconds to import."""
    miniatures.coco(tmp_path)
    program = (
        "import sys; from pipelines.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, *{'torch', 'mmengine', 'mmcv', 'mmdet', 'ray'} & set(sys.modules))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_ADDRESS": "ray://127.0.0.1:1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *line.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == str(code), done.stderr
    assert (f"error: {message}" if code else message) in done.stderr
