import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipelines.demo_data import demo_set
from stage1_proposals.common.errors import UserError

FEW = demo_set.Counts(unlabeled=2, train=2, test=2)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "demo"
    assert demo_set.build(out, seed=0, counts=FEW)
    return out


def test_everything_is_there_in_the_layout_of_ctw1500(built):
    assert sorted(str(path) for path in contents(built)) == [
        "complete.json",
        "ctw1500/annotations/test.json",
        "ctw1500/annotations/train.json",
        "ctw1500/ctw1500_train_labels/0001.xml",
        "ctw1500/ctw1500_train_labels/0002.xml",
        "ctw1500/gt_ctw1500/0001001.txt",
        "ctw1500/gt_ctw1500/0001002.txt",
        "ctw1500/test_images/1001.jpg",
        "ctw1500/test_images/1002.jpg",
        "ctw1500/train_images/0001.jpg",
        "ctw1500/train_images/0002.jpg",
        "objects/00001.jpg",
        "objects/00002.jpg",
        "objects/annotations.json",
        "unlabeled/00001.jpg",
        "unlabeled/00002.jpg",
    ]
    for path in built.rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert 256 <= min(image.size) <= max(image.size) <= 384
    assert not built.with_name("demo.partial").exists()


@pytest.mark.parametrize(("split", "ids"), [("train", [1, 2]), ("test", [1001, 1002])])
def test_the_annotations_name_files_beside_them(built, split, ids):
    coco = COCO(built / "ctw1500" / "annotations" / f"{split}.json")
    assert sorted(coco.imgs) == ids
    for entry in coco.imgs.values():
        assert coco.getAnnIds(entry["id"])
        with Image.open(built / "ctw1500" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])


def test_the_labels_of_objects_are_where_they_were_pasted(built):
    coco = COCO(built / demo_set.OBJECTS)
    assert sorted(coco.imgs) == [1, 2]
    for entry in coco.imgs.values():
        things = coco.imgToAnns[entry["id"]]
        assert things
        masks = [coco.annToMask(thing) for thing in things]
        assert sum(masks).max() == 1  # what is covered belongs to what covers it
        assert [int(mask.sum()) for mask in masks] == [thing["area"] for thing in things]
        with Image.open(built / "objects" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
    assert not {path.read_bytes() for path in (built / "objects").glob("*.jpg")} & {
        path.read_bytes() for path in (built / "unlabeled").glob("*.jpg")
    }


def test_the_same_seed_gives_the_same_bytes_and_an_image_depends_on_its_index_alone(built, tmp_path):
    more = demo_set.Counts(unlabeled=3, train=2, test=2)
    demo_set.build(tmp_path / "again", seed=0, counts=more)
    again, first = contents(tmp_path / "again"), contents(built)
    assert {path: again[path] for path in first if path.suffix != ".json"} == {
        path: data for path, data in first.items() if path.suffix != ".json"
    }
    assert len(again) == len(first) + 1


def test_several_processes_draw_the_same(built, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_set, "MIN_IMAGES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    images = []
    assert demo_set.build(tmp_path / "demo", seed=0, counts=FEW, advance=images.append)
    assert images == [1] * FEW.total
    assert contents(tmp_path / "demo") == contents(built)


def test_an_error_in_a_process_that_draws_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_set, "MIN_IMAGES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(
        UserError, match=r"demo\.partial: cannot be written \(No space left on device\); choose another"
    ):
        demo_set.build(tmp_path / "demo", seed=0, counts=FEW)


def test_a_complete_set_is_left_alone_and_any_other_is_built_anew(tmp_path, monkeypatch):
    one = demo_set.Counts(1, 1, 1)
    out = tmp_path / "demo"
    with monkeypatch.context() as killed:

        def kill(*args):
            raise KeyboardInterrupt

        killed.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            demo_set.build(out, seed=0, counts=FEW)
    annotations = tmp_path / "demo.partial" / "ctw1500" / "annotations"
    (annotations / ".train.json.host-1.tmp").touch()  # as a process leaves it that is killed outright
    assert not out.exists()
    assert demo_set.build(out, seed=0, counts=one)
    first = contents(out)
    assert not demo_set.build(out, seed=0, counts=one)
    (out / "unlabeled" / "00001.jpg").unlink()
    assert demo_set.build(out, seed=0, counts=one)
    assert contents(out) == first
    (out / "ctw1500" / "annotations" / "test_check.png").touch()  # `make data` draws it
    assert demo_set.build(out, seed=1, counts=one)
    assert json.loads((out / demo_set.STAMP).read_text())["seed"] == 1
    assert contents(out).keys() == first.keys()
    assert all(data != first[path] for path, data in contents(out).items() if path.suffix == ".jpg")


def test_a_folder_of_someone_elses_is_refused_and_kept(tmp_path):
    keep = tmp_path / "holiday.txt"
    keep.write_text("mine")
    with pytest.raises(UserError, match=r"no demo set.*another folder"):
        demo_set.build(tmp_path, seed=0, counts=FEW)
    assert keep.read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "unlabeled/mine.jpg",
        "unlabeled/00003.jpg",
        "ctw1500/mine",
        "objects/mine.json",
        "notes.txt",
        "ctw1500/annotations/train.json.bak",
    ],
)
def test_what_others_put_into_a_set_is_never_removed(built, tmp_path, name):
    out = tmp_path / "demo"
    shutil.copytree(built, out)
    (out / name).write_text("mine")
    before = contents(out)
    assert not demo_set.build(out, seed=0, counts=FEW)  # ours is all there
    with pytest.raises(UserError, match=f"{out / name} is not of the demo set.*: move it away or choose another"):
        demo_set.build(out, seed=1, counts=FEW)
    (out / "unlabeled" / "00001.jpg").unlink()
    with pytest.raises(UserError, match=str(out / name)):
        demo_set.build(out, seed=0, counts=FEW)
    assert contents(out) == {path: data for path, data in before.items() if path != Path("unlabeled/00001.jpg")}
    assert not out.with_name("demo.partial").exists()


def test_a_folder_that_only_has_the_name_of_ours_is_kept(tmp_path):
    keep = tmp_path / "demo.partial" / "unlabeled" / "00001.jpg"
    keep.parent.mkdir(parents=True)
    keep.write_text("mine")
    with pytest.raises(UserError, match=r"demo\.partial exists and is no demo set"):
        demo_set.build(tmp_path / "demo", seed=0, counts=FEW)
    assert keep.read_text() == "mine"


def test_files_that_arrive_while_a_set_is_drawn_are_kept(built, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    shutil.copytree(built, out)
    write_set = demo_set._write_set

    def arrive(*args):
        (out / "mine.jpg").write_text("mine")
        write_set(*args)

    monkeypatch.setattr(demo_set, "_write_set", arrive)
    with pytest.raises(UserError, match=r"mine\.jpg is not of the demo set"):
        demo_set.build(out, seed=1, counts=FEW)
    assert contents(out).keys() == {*contents(built), Path("mine.jpg")}


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"demo\.partial: cannot be written \(No space left on device\); choose"):
        demo_set.build(tmp_path / "demo", seed=0, counts=FEW)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        demo_set.build(tmp_path / "file" / "demo", seed=0, counts=FEW)
