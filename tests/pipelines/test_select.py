"""`make select`: which images to label next, of shard sets whose images are planted in clusters."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import prediction_job
from stage1_proposals.common.label_files import ImageLabels
from stage1_proposals.common.masks import encode_masks
from stage1_proposals.images.listing import list_images
from stage1_proposals.shards import ShardSet
from stage2_training.labels.labelme import convert_labelme
from tests.pipelines.command import run_command

DIM = 16
CLUSTERS = "aaabbbbccccc"  # of the images 00 to 11
NAMES = [f"{cluster}/{number:02d}.png" for number, cluster in enumerate(CLUSTERS)]


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> Path:
    """Twelve images of 24 x 32 pixels in three folders, a cluster each, with four proposals an image."""
    rng = np.random.default_rng(0)
    masks = rectangles([(2 * m, 0, 2 * m + 9, 8) for m in range(4)], 24, 32)
    records = []
    for number, name in enumerate(NAMES):
        features = np.eye(DIM)["abc".index(name[0])] + 0.1 * rng.standard_normal((4, DIM))
        records.append(make_record(number, name, masks, features))
    return write_shards([records[:5], records[5:]], {"feature_dim": DIM}).directory


@pytest.fixture
def select(shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Select three images, or `--count`, in this process: the exit code, and what was printed."""

    def run(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        common = ["--shards", shards, "--out", tmp_path / "out", "--count", 3, "--threshold", 1, "--workers", 0]
        code = run_command("select", *common, "--device", "cpu", *words)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """What the run's model finds: of each image, objects with these scores."""
    found = {name: [0.95] for name in NAMES}

    def labels(self: object, name: str, image_id: int, pixels: np.ndarray) -> ImageLabels:
        height, width = pixels.shape[:2]
        masks = np.zeros((len(found[name]), height, width), np.uint8)
        masks[:, 4:12, 4:20] = 1
        counts = [rle["counts"] for rle in encode_masks(masks.astype(bool))]
        return ImageLabels(image_id, name, (height, width), counts, found[name], [0] * len(counts))

    monkeypatch.setattr(prediction_job.BlockBuilder, "_labels", labels)
    return found


def selected(out: Path) -> list[str]:
    return (out / "images.txt").read_text().splitlines()


def clusters(names: list[str]) -> str:
    return "".join(name[0] for name in names)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_list_a_contact_sheet_and_a_labelme_project_are_written(select: Callable, tmp_path: Path) -> None:
    code, printed = select()
    assert code == 0, printed
    out = tmp_path / "out"
    names = selected(out)
    assert clusters(names) == "cba"  # the largest first
    assert f"{out}/images.txt: 3 of 12 images without labels" in printed
    assert f"{out}/labelme: 12 pre-labels; `labelme {out}/labelme` opens them" in printed
    listed = list_images(out / "images.txt", tmp_path / "images")
    assert sorted(names) == list(listed.names)
    # labelme lists the images of a folder, and takes for each the JSON beside it.
    for name in names:
        image = out / "labelme" / name
        assert image.resolve() == tmp_path / "images" / name
        document = json.loads(image.with_suffix(".json").read_text())
        assert (image.parent / document["imagePath"]).resolve() == image.resolve()
    converted = convert_labelme(out / "labelme", None).coco
    assert len(converted["images"]) == 3
    assert [category["name"] for category in converted["categories"]] == ["object"]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * 262 + 6, 268)


def test_proposals_are_named_and_the_best_taken(select: Callable, tmp_path: Path) -> None:
    assert select("--best", 1, "--name", "cell")[0] == 0
    shapes = [json.loads(path.read_text())["shapes"] for path in (tmp_path / "out" / "labelme").rglob("*.json")]
    assert [[shape["label"] for shape in one] for one in shapes] == [["cell"]] * 3


def coco_labels(folder: Path, images: list[Path]) -> Path:
    (folder / "labels.json").write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": path.name} for n, path in enumerate(images, 1)],
                "annotations": [],
                "categories": [{"id": 1, "name": "cell"}],
            }
        )
    )
    return folder / "labels.json"


def labelme_labels(folder: Path, images: list[Path]) -> Path:
    for path in images:
        document = {"imagePath": os.path.relpath(path, folder), "shapes": []}
        (folder / f"{path.stem}.json").write_text(json.dumps(document))
    return folder


def yolo_labels(folder: Path, images: list[Path]) -> Path:
    (folder / "train.txt").write_text(f"{images[0]}\n")
    (folder / "val.txt").write_text("".join(f"{path}\n" for path in images[1:]))
    for path in images:  # `labels` stands for `images` in the path
        label = folder / path.parent.name / f"{path.stem}.txt"
        label.parent.mkdir()
        label.write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    (folder / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cell]\n")
    return folder / "data.yaml"


@pytest.mark.parametrize("write", [coco_labels, labelme_labels, yolo_labels])
def test_what_is_labelled_is_not_selected_again(select: Callable, tmp_path: Path, write: Callable) -> None:
    (tmp_path / "labels").mkdir()
    labels = write(tmp_path / "labels", [tmp_path / "images" / NAMES[row] for row in (0, 11)])
    code, printed = select("--labels", labels, "--count", 1)
    assert code == 0, printed
    assert f"{labels}: 2 of its 2 images are in the shards" in printed
    assert clusters(selected(tmp_path / "out")) == "b"
    assert select("--labels", labels, "--count", 10, "--out", tmp_path / "all")[0] == 0
    assert sorted(selected(tmp_path / "all")) == NAMES[1:11]


def test_an_image_whose_label_is_malformed_is_told_and_not_labelled(select: Callable, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    labelme_labels(tmp_path / "labels", [tmp_path / "images" / name for name in NAMES[:2]])
    (tmp_path / "labels" / "00.json").write_text("{")
    code, printed = select("--labels", tmp_path / "labels", "--count", 11)
    assert code == 0
    assert f"left out: {tmp_path}/labels/00.json: not JSON" in printed
    assert sorted(selected(tmp_path / "out")) == [NAMES[0], *NAMES[2:]]


def test_rounds_go_on_with_what_the_last_one_wrote(select: Callable, tmp_path: Path) -> None:
    assert select()[0] == 0
    assert select("--labels", tmp_path / "out" / "labelme", "--out", tmp_path / "next")[0] == 0
    assert not set(selected(tmp_path / "out")) & set(selected(tmp_path / "next"))


def test_near_duplicates_are_told_if_they_must_be_taken(select: Callable, tmp_path: Path) -> None:
    code, printed = select("--count", 12, "--threshold", 0.5)
    assert code == 0
    assert "9 of them are near-duplicates of labelled or selected ones: no others were left" in printed
    assert set(clusters(selected(tmp_path / "out"))[:3]) == set("abc")


def test_of_each_cluster_the_image_that_the_run_is_least_sure_of(
    select: Callable, tmp_path: Path, run_dir: Path, scores: dict[str, list[float]]
) -> None:
    typical = "--out", tmp_path / "typical"
    assert select(*typical)[0] == 0
    unsure = [
        next(name for name in NAMES if name[0] == c and name not in selected(tmp_path / "typical")) for c in "cba"
    ]
    scores |= {unsure[0]: [0.5, 0.1], unsure[1]: [0.6], unsure[2]: [0.95, 0.35]}
    code, printed = select("--work-dir", run_dir)
    assert code == 0, printed
    out = tmp_path / "out"
    assert selected(out) == unsure
    assert f"{out}/labelme: 4 pre-labels" in printed  # one is below 0.2
    shapes = json.loads((out / "labelme" / unsure[2]).with_suffix(".json").read_text())["shapes"]
    assert [(shape["label"], shape["description"]) for shape in shapes] == [
        ("text", "score 0.950"),
        ("text", "score 0.350"),
    ]
    assert select("--checkpoint", run_dir / "iter_1.pth", "--out", tmp_path / "other")[0] == 0
    assert selected(tmp_path / "other") == unsure


def test_an_image_that_cannot_be_read_is_left_out(
    select: Callable, tmp_path: Path, run_dir: Path, scores: dict[str, list[float]]
) -> None:
    scores[NAMES[4]] = [0.5]
    (tmp_path / "images" / NAMES[4]).write_bytes(b"nothing")
    code, printed = select("--work-dir", run_dir)
    assert code == 0, printed
    assert f"left out: '{NAMES[4]}': " in printed
    assert clusters(selected(tmp_path / "out")) == "cba"
    code, printed = select("--work-dir", run_dir, "--count", 12, "--out", tmp_path / "all")
    assert code == 2
    assert "only 11 of 12 images can be read; repair the others" in printed
    (tmp_path / "images" / NAMES[4]).write_bytes((tmp_path / "images" / NAMES[3]).read_bytes())
    code, printed = select("--work-dir", run_dir, "--count", 12, "--out", tmp_path / "all")
    assert code == 0, printed
    assert NAMES[4] in selected(tmp_path / "all")


@pytest.mark.parametrize("with_run", [False, True])
def test_run_again_it_gives_the_same_and_changes_no_label(
    select: Callable, tmp_path: Path, request: pytest.FixtureRequest, with_run: bool
) -> None:
    words = []
    if with_run:
        request.getfixturevalue("scores")
        words = ["--work-dir", request.getfixturevalue("run_dir")]
    assert select(*words)[0] == 0
    out = tmp_path / "out"
    first = content(out)
    one, two, three = (out / "labelme" / name for name in selected(out))
    one.with_suffix(".json").unlink()  # killed before all was written
    two.unlink()
    (out / "contact_sheet.png").unlink()
    assert select(*words)[0] == 0
    assert content(out) == first
    three.with_suffix(".json").write_text("corrected")
    code, printed = select(*words)
    assert code == 0
    assert f"1 label files stay as they are, {three.with_suffix('.json')} first: they hold other labels" in printed
    assert three.with_suffix(".json").read_text() == "corrected"


def test_another_selection_for_the_same_folder_is_refused(select: Callable, tmp_path: Path) -> None:
    assert select()[0] == 0
    first = content(tmp_path / "out")
    code, printed = select("--count", 4)
    assert code == 2
    assert f"error: {tmp_path}/out/images.txt: lists another selection; choose another OUT (--out)" in printed
    assert content(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "13"], "{tmp}/shards: 12 images are left to choose 13 from; of its 12, 0 are labelled; choose f"),
        (["--count", "0"], "Invalid value for '--count': 0 is not in the range x>=1."),
        (["--threshold", "0.3"], "--threshold 0.3: use 0.5 to 1"),
        (["--labels", "{tmp}/none.json"], "{tmp}/none.json: cannot be read (No such file or directory)"),
        (["--labels", "{tmp}/other.json"], "labels {tmp}/other.json: none of their images is in the shards; their n"),
        (["--image-root", "{tmp}/gone"], "{tmp}/gone: the folder of the images is not there; say where it is with --"),
        (["--out", "{tmp}/images/out"], "--out {tmp}/images/out: the output cannot lie among the images of {tmp}/im"),
        (["--work-dir", "{tmp}/none"], "{tmp}/none: no run here (no config.py)"),
        (["--checkpoint", "{tmp}/none.pth"], "{tmp}/none.pth: no such checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    select: Callable, tmp_path: Path, options: list[str], message: str
) -> None:
    coco_labels(tmp_path, [Path("other.png")]).rename(tmp_path / "other.json")
    code, printed = select(*(option.replace("{tmp}", str(tmp_path)) for option in options))
    assert code == 2
    (line,) = printed.splitlines()
    assert line.startswith("error: " + message.replace("{tmp}", str(tmp_path)))
    assert not (tmp_path / "out").exists()
