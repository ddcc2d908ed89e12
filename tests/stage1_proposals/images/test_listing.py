"""The images of a run and their ids: from a folder, a COCO JSON or a text list."""

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.images.listing import ImageList, image_ids, list_images
from stage1_proposals.shards import Manifest
from tests.shard_sets import make_request

ROOT = Path(__file__).parents[3]
AsNobody = Callable[[], AbstractContextManager[None]]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_are_found_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b/1.png", "a.jpg", "b.jpg", "b/c/d.webp")
    assert list_images(tmp_path).names == ("a.jpg", "b.jpg", "b/1.png", "b/2.jpg", "b/c/d.webp")


def test_an_extension_counts_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "b.Png", "notes.txt", "jpg")
    assert list_images(tmp_path).names == ("a.JPG", "b.Png")


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    """A folder of images under unusual names and in formats that are not read, with texts that begin like images."""
    image = Image.fromarray(np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3))
    folder = tmp_path / "formats"
    folder.mkdir()
    for name, format_ in FORMATS_BY_NAME.items():
        image.save(folder / name, format_)
    image.save(folder / "grey.pgm", "PPM")
    (folder / "IMG_1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (folder / "IMG_2.HEIC").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100))
    tags = ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"  # DNGVersion
    image.save(folder / "IMG_3.dng", "TIFF", tiffinfo=tags)
    tags = ImageFileDirectory_v2()
    tags[254] = 1  # a preview, as in NEF and ARW
    image.save(folder / "IMG_4.nef", "TIFF", tiffinfo=tags)
    (folder / "BMW.txt").write_text("BMW sold 12 cars")
    (folder / "notes").write_text("P5 is for greys")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to("nowhere")
    return folder


FORMATS_BY_NAME = {
    "a.jpg": "JPEG",
    "b.jfif": "JPEG",
    "c.jpe": "JPEG",
    "d.avif": "AVIF",
    "e.jpg_large": "JPEG",
    "f": "JPEG",
    "g.apng": "PNG",
    "h.": "WEBP",
    "i.dat": "GIF",
    "j.dib2": "BMP",
    "k.j2k": "JPEG2000",
    "l.page": "TIFF",
}


def test_images_are_told_by_their_content_and_other_files_counted(formats: Path) -> None:
    images = list_images(formats)
    assert set(images.names) == {*FORMATS_BY_NAME, "grey.pgm"}
    assert all(read_image(formats / name).shape == (30, 40, 3) for name in images.names)
    assert images.remarks == (
        "9 files passed over (not images that can be read): 4 without extension, 2 .heic, 1 .txt, 1 .dng, 1 .nef; "
        "the first is 'BMW.txt'",
    )


def test_a_folder_of_other_files_alone_says_what_they_are(formats: Path) -> None:
    for name in [*FORMATS_BY_NAME, "grey.pgm"]:
        (formats / name).unlink()
    with pytest.raises(UserError, match=r"no images in it; 9 files passed over \(not images.*2 \.heic"):
        list_images(formats)


def test_a_camera_raw_file_is_refused_under_any_name(formats: Path) -> None:
    (formats / "IMG_3.dng").rename(formats / "IMG_3.tif")
    with pytest.raises(ImageError, match="is a camera's raw file, of which only a preview can be read"):
        read_image(formats / "IMG_3.tif")


def test_images_that_cannot_be_used_are_listed_to_be_recorded_as_failed(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 4)).save(tmp_path / "strip", "TIFF")
    (tmp_path / "huge").write_bytes(b"P6 60000 60000 255\n")
    (tmp_path / "cut").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    assert list_images(tmp_path).names == ("cut", "huge", "strip")


def test_one_image_is_no_list_whatever_its_name(formats: Path) -> None:
    for name in ("a.jpg", "f"):
        with pytest.raises(UserError, match=f"{name}: is one image; name its folder"):
            list_images(formats / name)


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "images/2.jpg")
    (tmp_path / "images/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/link.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "images")
    assert list_images(tmp_path / "images").names == ("2.jpg", "link.jpg", "link/1.jpg")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbnails/c.jpg")
    assert list_images(tmp_path).names == ("a.jpg",)


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    touch(tmp_path, name)
    images = list_images(tmp_path)
    assert images.names == (name,)
    assert len(images.sha256()) == 64


def test_a_missing_folder_and_one_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "gone")
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match="no images in it"):
        list_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(open_folder: Path, as_nobody: AsNobody) -> None:
    touch(open_folder, "a.jpg", "locked/b.jpg")
    (open_folder / "locked").chmod(0)
    with as_nobody(), pytest.raises(UserError, match="locked: cannot be read"):
        list_images(open_folder)
    with as_nobody(), pytest.raises(UserError, match=r"b\.jpg: cannot be reached \(Permission denied\)"):
        list_images(open_folder / "locked" / "b.jpg")


def test_pictures_beside_a_shard_set_are_not_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "shards/contact_sheet.png", "shards/images/b.jpg", "theirs/c.jpg", "damaged/d.jpg")
    for folder in ("shards", "sound"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Manifest(make_request(), None).write(tmp_path / folder)
    (tmp_path / "theirs/manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "damaged/manifest.json").write_text("{")
    assert list_images(tmp_path).names == ("a.jpg", "damaged/d.jpg", "shards/images/b.jpg", "theirs/c.jpg")


def test_the_shards_own_folder_holds_no_images_and_is_not_the_image_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "shards/similar.png")
    (tmp_path / "link").symlink_to(tmp_path / "shards")
    assert list_images(tmp_path, exclude_dir=tmp_path / "shards").names == ("a.jpg",)
    assert list_images(tmp_path, exclude_dir=tmp_path / "link").names == ("a.jpg",)
    with pytest.raises(UserError, match="the shards cannot lie among the images; choose another SHARDS directory"):
        list_images(tmp_path / "shards", exclude_dir=tmp_path / "link")


def test_the_list_hash_depends_on_the_set_of_names(tmp_path: Path) -> None:
    for folder, names in (("one", ["a.jpg", "b.jpg"]), ("same", ["b.jpg", "a.jpg"]), ("other", ["a.jpg", "c.jpg"])):
        touch(tmp_path / folder, *names)
    one, same, other = (list_images(tmp_path / folder).sha256() for folder in ("one", "same", "other"))
    assert one == same != other


def test_a_numeric_stem_is_the_coco_id() -> None:
    assert image_ids(["000000000139.jpg", "train/42.png"]) == (139, 42)


def test_a_name_is_hashed_to_a_stable_id() -> None:
    # SHA-256 of the path, its first 63 bits.
    assert image_ids(["cat.jpg", "photos/ünï.jpg"]) == (375762793526705882, 6246985361669078623)


def test_a_number_used_twice_is_hashed() -> None:
    first, second, third = image_ids(["a/1.jpg", "b/01.jpg", "2.jpg"])
    assert third == 2
    assert len({first, second, 1, 2}) == 4


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, max_size=20))
def test_ids_are_different_and_fit_int64(names: list[str]) -> None:
    ids = image_ids(names)
    assert len(set(ids)) == len(names)
    assert all(0 <= number < 2**63 for number in ids)


# Names that Linux allows and people use; they are kept byte for byte.
ODD_NAMES = [
    unicodedata.normalize("NFC", "é.jpg"),
    unicodedata.normalize("NFD", "é.jpg"),
    "🏔️👩‍👩‍👧.jpg",
    "תמונה/صورة.jpg",
    "\u202egpj.exe.jpg",
    "two\nlines.jpg",
    "carriage\rreturn.jpg",
    "bell\x07 and escape\x1b[31m.jpg",
    " leading and trailing .jpg",
    "# no comment.jpg",
    "'quotes\".jpg",
    "back\\slash.jpg",
    "\ufeffmark.jpg",
    "-rf.jpg",
    "*?[a].jpg",
    os.fsdecode(b"latin \xe9.jpg"),
]


def coco(path: Path, images: list[Any], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": [], **more}))
    return path


def entries(*names: str) -> list[dict[str, Any]]:
    return [{"id": 100 + number, "file_name": name} for number, name in enumerate(names)]


def lines(path: Path, *names: str, end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join(os.fsencode(name) + end for name in names))
    return path


def test_odd_names_are_found_in_a_folder_and_stay_themselves(tmp_path: Path) -> None:
    touch(tmp_path, *ODD_NAMES)
    images = list_images(tmp_path)
    assert list(images.names) == sorted(ODD_NAMES)
    assert len(set(images.ids)) == len(ODD_NAMES)


def test_odd_names_are_read_from_a_json_and_from_a_list(tmp_path: Path) -> None:
    touch(tmp_path, *ODD_NAMES)
    folder = list_images(tmp_path)
    assert list_images(coco(tmp_path / "images.json", entries(*ODD_NAMES))).names == folder.names
    assert list_images(lines(tmp_path / "images.txt", *ODD_NAMES, end=b"\0")) == folder
    in_lines = [name for name in ODD_NAMES if "\n" not in name]
    assert list_images(lines(tmp_path / "images.txt", *in_lines)).names == tuple(sorted(in_lines))


@pytest.mark.parametrize(
    "content", [b"a.jpg\r\n\r\nb/c.jpg", b"\xef\xbb\xbfb/c.jpg\n./a.jpg\n\n", b"b//c.jpg\0./a.jpg\0"]
)
def test_lists_as_windows_and_find_write_them_are_the_same_list(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path, "a.jpg", "b/c.jpg")
    folder = list_images(tmp_path)
    (tmp_path / "images.txt").write_bytes(content)
    assert list_images(tmp_path / "images.txt") == folder


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_a_list_of_windows_in_utf16_is_read(tmp_path: Path, mark: bytes) -> None:
    touch(tmp_path, "a.jpg", "ü.jpg")
    text = "a.jpg\r\nü.jpg\r\n".encode("utf-16-le" if mark == b"\xff\xfe" else "utf-16-be")
    (tmp_path / "images.txt").write_bytes(mark + text)
    assert list_images(tmp_path / "images.txt").names == ("a.jpg", "ü.jpg")
    (tmp_path / "images.txt").write_bytes(mark + text[:-1])
    with pytest.raises(UserError, match=r"images\.txt: begins like UTF-16 but is not; save the list as UTF-8$"):
        list_images(tmp_path / "images.txt")


def test_a_list_in_another_encoding_than_the_file_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "ü.jpg", os.fsdecode("é.jpg".encode("latin-1")))
    (tmp_path / "images.txt").write_bytes("a.jpg\né.jpg\n".encode("latin-1"))  # its bytes are on disk
    assert len(list_images(tmp_path / "images.txt")) == 2
    (tmp_path / "images.txt").write_bytes("a.jpg\nü.jpg\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"images\.txt: '\\udcfc\.jpg' is not UTF-8, and .* save the list as UTF-8$"):
        list_images(tmp_path / "images.txt")


def test_a_blank_at_the_end_of_a_name_is_seen_in_the_message(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=r"none of its 1 images is under .*; the first is 'a\.jpg '$"):
        list_images(lines(tmp_path / "images.txt", "a.jpg "))


def test_a_json_keeps_its_ids_in_the_order_of_the_names(tmp_path: Path) -> None:
    touch(tmp_path, "7.jpg", "b.jpg", "c.jpg")
    images = [{"id": 5, "file_name": "c.jpg"}, {"id": -(2**63), "file_name": "b.jpg"}, {"id": 0, "file_name": "7.jpg"}]
    listed = list_images(coco(tmp_path / "images.json", images))
    assert listed == ImageList(tmp_path.resolve(), ("7.jpg", "b.jpg", "c.jpg"), (0, -(2**63), 5))


def test_other_ids_are_another_list(tmp_path: Path) -> None:
    touch(tmp_path / "images", "7.jpg", "8.jpg")
    folder = list_images(tmp_path / "images")
    same = coco(tmp_path / "same.json", [{"id": 8, "file_name": "8.jpg"}, {"id": 7, "file_name": "7.jpg"}])
    other = coco(tmp_path / "other.json", [{"id": 7, "file_name": "8.jpg"}, {"id": 8, "file_name": "7.jpg"}])
    assert list_images(same, tmp_path / "images").sha256() == folder.sha256()
    assert list_images(other, tmp_path / "images").sha256() != folder.sha256()


@pytest.mark.parametrize(
    "folder", ["set/annotations", "set/annotations/images", "set", "set/unlabeled2017", "set/images", "elsewhere"]
)
def test_the_images_of_a_json_are_found_in_cocos_folders_or_the_given_one(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder, "images/1.jpg")
    path = coco(tmp_path / "set/annotations/image_info_unlabeled2017.json", entries("images/1.jpg", "images/gone.jpg"))
    images = list_images(path, tmp_path / folder if folder == "elsewhere" else None)
    assert images.root == (tmp_path / folder).resolve()
    assert images.names == ("images/1.jpg", "images/gone.jpg")


def test_a_given_root_takes_precedence_over_the_folder_of_the_list(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "elsewhere/1.jpg")
    path = lines(tmp_path / "images.txt", "1.jpg")
    assert list_images(path).root == tmp_path.resolve()
    assert list_images(path, tmp_path / "elsewhere").root == (tmp_path / "elsewhere").resolve()


def test_when_no_image_is_there_every_folder_tried_is_named(tmp_path: Path) -> None:
    path = coco(tmp_path / "set/annotations/instances_val.json", entries("1.jpg", "2.jpg"))
    with pytest.raises(
        UserError,
        match=f"none of its 2 images is under {path.parent} or the folder above it, nor in `val/`, `images/` or "
        "`images/val/` of either; say where they are with --image-root; the first is '1.jpg'$",
    ):
        list_images(path)
    with pytest.raises(UserError, match=f"none of its 2 images is under {tmp_path}; say"):
        list_images(path, tmp_path)
    with pytest.raises(UserError, match=f"none of its 1 images is under {tmp_path}; say"):
        list_images(lines(tmp_path / "images.txt", "1.jpg"))


def test_a_name_is_listed_in_the_unicode_form_that_the_disk_has(tmp_path: Path) -> None:
    composed, decomposed = "\u00e9.jpg", "e\u0301.jpg"
    touch(tmp_path, decomposed, "a.jpg")
    listed = list_images(coco(tmp_path / "images.json", entries("a.jpg", composed)))
    assert listed.names == ("a.jpg", decomposed)
    assert list_images(lines(tmp_path / "images.txt", composed)).names == (decomposed,)


def test_a_link_inside_the_root_may_lead_out_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "images/2.jpg")
    (tmp_path / "images/link").symlink_to(tmp_path / "elsewhere")
    assert list_images(lines(tmp_path / "images/list.txt", "link/1.jpg", "2.jpg")) == list_images(tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/passwd", r"is absolute \('/etc/passwd'\); write paths relative to --image-root"),
        ("//etc/passwd", "is absolute"),
        ("../1.jpg", r"contains `\.\.` \('\.\./1\.jpg'\); write paths inside"),
        ("a/../../1.jpg", "contains"),
        ("a/..", "contains"),
        (".", "is no file name"),
        ("./", "is no file name"),
        ("x" * 5000 + "/..", r"contains `\.\.` \('x{200}'\.\.\.\)"),
    ],
)
def test_path_tricks_are_refused_naming_the_entry(tmp_path: Path, name: str, fault: str) -> None:
    touch(tmp_path, "1.jpg")
    json_, text = tmp_path / "images.json", tmp_path / "images.txt"
    with pytest.raises(UserError, match=rf"^{json_}: images\[1\] {fault}"):
        list_images(coco(json_, entries("1.jpg", name)))
    with pytest.raises(UserError, match=f"^{text}: line 2 {fault}"):
        list_images(lines(text, "1.jpg", name))


@pytest.mark.parametrize("name", ["", "a\0b.jpg", "\ud800.jpg"], ids=["empty", "zero byte", "half a surrogate pair"])
def test_what_only_a_json_can_hold_is_refused_too(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"images\[0\] is no file name \('") as error:
        list_images(coco(tmp_path / "images.json", entries(name)))
    str(error.value).encode()


def test_an_image_named_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(UserError, match=r"images\[0\] and images\[2\] are the same image \('1\.jpg'\)"):
        list_images(coco(tmp_path / "images.json", entries("1.jpg", "2.jpg", "./1.jpg")))
    with pytest.raises(UserError, match=r"line 1 and line 4 are the same image \('1\.jpg'\)"):
        list_images(lines(tmp_path / "images.txt", "1.jpg", "2.jpg", "", "1.jpg"))


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    images = [{"id": 3, "file_name": "1.jpg"}, {"id": 3, "file_name": "2.jpg"}]
    with pytest.raises(UserError, match=r"images\[0\] and images\[1\] have the same id 3"):
        list_images(coco(tmp_path / "images.json", images))


@pytest.mark.parametrize("number", [None, "1", 1.0, True, 2**63, -(2**63) - 1, [1]])
def test_an_id_is_a_whole_number_of_64_bits(tmp_path: Path, number: object) -> None:
    path = coco(tmp_path / "images.json", [{"id": number, "file_name": "1.jpg"}])
    with pytest.raises(UserError, match=r"images\[0\] \('1\.jpg'\) needs a whole number of 64 bits as `id`"):
        list_images(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"images": [{"id": "\xff"}]}', "not JSON"),
        ("[]", "not COCO JSON, it has no list `images`"),
        ("{}", "not COCO JSON"),
        ('{"images": 3}', "not COCO JSON"),
        ('{"images": []}', "no images in it"),
        ('{"images": ["1.jpg"]}', r"images\[0\] needs a text as `file_name`"),
        ('{"images": [{"id": 1}]}', r"images\[0\] needs a text as `file_name`"),
        ('{"images": [{"id": 1, "file_name": 1}]}', r"images\[0\] needs a text as `file_name`"),
    ],
)
def test_what_is_no_coco_json_is_refused(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "images.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=f"^{tmp_path}/images.json: {fault}"):
        list_images(tmp_path / "images.json")


def test_annotations_do_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    annotations = [{"id": 1, "image_id": 100, "segmentation": {"size": [1, 1], "counts": "0"}}, {"images": 3}, 4]
    path = coco(tmp_path / "images.json", entries("1.jpg"), annotations=annotations, info={"images": []})
    assert list_images(path).ids == (100,)


def test_lists_that_cannot_be_used_are_refused(tmp_path: Path, open_folder: Path, as_nobody: AsNobody) -> None:
    touch(tmp_path, "1.jpg")
    touch(open_folder, "locked.txt")
    (open_folder / "locked.txt").chmod(0)
    with pytest.raises(UserError, match=r"images\.txt: no images in it"):
        list_images(lines(tmp_path / "images.txt", "", ""))
    with as_nobody(), pytest.raises(UserError, match=r"locked\.txt: cannot be read"):
        list_images(open_folder / "locked.txt")
    with pytest.raises(UserError, match=r"1\.jpg: is one image; name its folder"):
        list_images(tmp_path / "1.jpg")
    with pytest.raises(UserError, match=r"image root .*gone: no such folder"):
        list_images(lines(tmp_path / "images.txt", "1.jpg"), tmp_path / "gone")
    with pytest.raises(UserError, match=r"--image-root .* goes with a JSON or a list"):
        list_images(tmp_path, tmp_path)


@given(st.binary(max_size=60))
@example(b"\xffO\xffQ")  # the first bytes of an image, JPEG 2000's
def test_any_bytes_are_a_list_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any bytes"
    folder.mkdir(exist_ok=True)
    for name in ("images.txt", "images.json"):
        (folder / name).write_bytes(data)
        with pytest.raises(UserError, match=f"^(image folder )?{folder}/{name}: "):
            list_images(folder / name)


def test_ten_thousand_images_in_one_folder_are_listed(tmp_path: Path) -> None:
    for number in range(10_000):
        os.close(os.open(tmp_path / f"{number:012d}.jpg", os.O_CREAT | os.O_WRONLY))
    images = list_images(tmp_path)
    assert images.ids == tuple(range(10_000))
    assert images.names[-1] == "000000009999.jpg"


def test_images_are_listed_without_pytorch(formats: Path) -> None:
    """It takes seconds to import, so mistakes in lists are told before."""
    program = (
        "import sys\n"
        "from stage1_proposals.images.listing import list_images\n"
        "from stage1_proposals.jobs.store import open_store, stored_manifest\n"
        "print(len(list_images(sys.argv[1])), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(formats)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["13", "False"]


def test_paths_of_windows_are_found_unless_an_image_has_such_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b\\2.jpg")
    images = [{"id": 2, "file_name": "b\\2.jpg"}, {"id": 1, "file_name": "a\\1.jpg"}]
    assert list_images(coco(tmp_path / "images.json", images)) == ImageList(
        tmp_path.resolve(), ("a/1.jpg", "b\\2.jpg"), (1, 2)
    )
    assert list_images(lines(tmp_path / "images.txt", "b\\2.jpg", "a\\1.jpg")) == list_images(tmp_path)
