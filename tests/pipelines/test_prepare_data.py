import json
from dataclasses import dataclass

import pytest
from PIL import Image

from pipelines import cli, prepare_data
from pipelines.embedded_data import demo_set

POLYGON = "2,2,4,2,6,2,8,2,10,2,12,2,14,2,14,8,12,8,10,8,8,8,6,8,4,8,2,8"


def run(*argv):
    return cli.run(prepare_data.main, prepare_data.build_parser(), [str(argument) for argument in argv])


@dataclass(frozen=True)
class Few(demo_set.Counts):
    unlabeled: int = 1
    train: int = 1
    test: int = 1


def test_the_demo_set_is_written_once_and_summed_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_set, "Counts", Few)
    out = tmp_path / "demo"
    assert run("--dataset", "demo", "--out", out) == 0
    printed = capsys.readouterr().out
    assert f"{out / 'unlabeled'}: 1 unlabeled photos" in printed
    assert f"{out / 'ctw1500' / 'annotations' / 'train.json'}: 1 photos" in printed
    assert run("--dataset", "demo", "--out", out) == 0
    assert capsys.readouterr().out.splitlines() == [f"{out} is complete; nothing to do", *printed.splitlines()]


def test_each_data_set_has_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_set, "Counts", Few)
    assert run("--dataset", "demo") == 0
    assert (tmp_path / "data" / "demo" / "complete.json").is_file()
    assert run("--dataset", "ctw1500") == 2
    assert "data/ctw1500/train_images is missing" in capsys.readouterr().err


def test_a_negative_seed_is_one_clear_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--dataset", "demo", "--out", tmp_path / "demo", "--seed", -1)
    assert capsys.readouterr().err == "error: argument --seed: '-1' is no integer from 0 up\n"


@pytest.fixture(scope="module")
def ctw1500_root(tmp_path_factory):
    """A folder with the file names, numbers and formats of the whole CTW1500, and tiny photos."""
    root = tmp_path_factory.mktemp("ctw1500")
    for folder in ("train_images", "test_images", "ctw1500_train_labels", "gt_ctw1500"):
        (root / folder).mkdir()
    Image.new("RGB", (20, 12)).save(root / "photo.jpg")
    photo = (root / "photo.jpg").read_bytes()
    xml = f"<Annotations><image file='x'><box><label>A</label><segs>{POLYGON}</segs></box></image></Annotations>"
    for number in range(1, 1001):
        (root / "train_images" / f"{number:04d}.jpg").write_bytes(photo)
        (root / "ctw1500_train_labels" / f"{number:04d}.xml").write_text(xml)
    for number in range(1001, 1501):
        (root / "test_images" / f"{number}.jpg").write_bytes(photo)
        (root / "gt_ctw1500" / f"000{number}.txt").write_text(f"{POLYGON},####A\n{POLYGON},#######\n")
    return root


def test_ctw1500_is_counted_and_converted(ctw1500_root, capsys):
    assert run("--dataset", "ctw1500", "--root", ctw1500_root) == 0
    annotations = ctw1500_root / "annotations"
    assert capsys.readouterr().out.splitlines() == [
        f"{annotations / 'train.json'}: 1,000 photos, 1,000 lines of text",
        f"{annotations / 'test.json'}: 500 photos, 1,000 lines of text, 500 of them illegible (ignored)",
    ]
    assert len(json.loads((annotations / "train.json").read_text())["images"]) == 1000


@pytest.mark.parametrize("missing", ["train_images/0500.jpg", "gt_ctw1500/0001500.txt"])
def test_a_gap_in_ctw1500_is_named_with_where_to_get_it(ctw1500_root, missing, capsys):
    path = ctw1500_root / missing
    kept = path.rename(ctw1500_root / "kept")
    try:
        assert run("--dataset", "ctw1500", "--root", ctw1500_root) == 2
    finally:
        kept.rename(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path.parent) in line
    assert path.name in line
    assert "lacks 1 of" in line
    assert "https://github.com/Yuliang-Liu/Curve-Text-Detector" in line


def test_a_missing_folder_is_one_clear_line(tmp_path, capsys):
    assert run("--dataset", "ctw1500", "--root", tmp_path / "nowhere") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train_images is missing" in line
    assert "Curve-Text-Detector" in line
