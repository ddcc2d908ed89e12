"""The report of a directory with sound, unfinished, damaged and foreign things in it."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipelines.reporting import pictures

from pipelines import cli, report

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "<script>alert('1')</script>"


class Page(HTMLParser):
    """Checks that every element is closed where it must be; keeps attributes, texts and cells of tables.

    Attributes:
        rows: the texts of the cells of every row of every table.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += f"{data} "
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f"{data} "

    def row(self, start: str) -> list[str]:
        """The first row whose first cell begins so, its texts stripped."""
        return next([" ".join(cell.split()) for cell in row] for row in self.rows if row[0].strip().startswith(start))

    @property
    def ids(self) -> set[str | None]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}


@pytest.fixture
def make_report(capsys) -> Callable[..., tuple[Page, str]]:
    """(directory) -> its report, parsed, and what the command printed."""

    def run(directory: Path) -> tuple[Page, str]:
        assert cli.run(report.main, report.build_parser(), ["--work-dir", str(directory)]) == 0
        return Page((directory / "report.html").read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def work(tmp_path, make_run) -> Path:
    """Two finished runs, and one each that was interrupted, that failed, that never began and that pre-trained."""
    root = tmp_path / "work"
    make_run(root / "pre", pretraining=True, init="backbone", prompts={"matching": "cosine", "level": 0})
    make_run(root / "fine-seed0", weights="work/pre/iter_40.pth")
    make_run(root / "fine-seed1", weights="work/pre/iter_40.pth", seed=1, scores={"AP": 0.375, "AP50": 0.4})
    make_run(root / "half", 2, init="imagenet")
    nan = make_run(root / "nan", 1, init="scratch")
    images = [{"img_id": 5, "img_path": "a/5.png"}]
    process = {"process": 0, "losses": {"loss": "nan", "s0.loss_mask": 0.5}, "images": images}
    (nan / "non_finite.json").write_text(json.dumps({"step": 13, "processes": [process]}))
    make_run(root / "new", 0, init="densecl")
    return root


def test_an_empty_directory_is_one_line_and_2(tmp_path, capsys):
    (tmp_path / "config.py").write_text("a = 1\n")  # no run's
    for directory in (tmp_path, tmp_path / "none"):
        assert cli.run(report.main, report.build_parser(), ["--work-dir", str(directory)]) == 2
        assert capsys.readouterr().err == (
            f"error: {directory}: no runs, shard sets, tables or figures in there; "
            "name their directory with --work-dir (WORK_DIR=)\n"
        )
        assert not (directory / "report.html").exists()


def test_every_run_is_there_with_its_numbers(work, make_report):
    page, printed = make_report(work)
    assert re.fullmatch(rf"{work}/report.html: 6 runs \(0\.\d MB\)\n", printed)
    assert page.row("fine-seed0") == [
        *("fine-seed0", "knet_lite0", "sp cosine, level=0", "25.0", "50.0", "12.5", "-", "30.0", "20.0"),
        *("4", "8", "0.1", "0", "2 min"),
    ]
    assert page.row("fine-seed1")[3:6] == ["37.5", "40.0", "-"]
    assert page.row("half")[0] == "half interrupted in epoch 2 of 4"
    assert page.row("half")[3] == "25.0"  # what it came to
    assert page.row("nan")[0] == "nan failed, NaN or Inf at step 13"
    assert page.row("new")[:4] == ["new not begun", "knet_lite0", "densecl", "-"]
    assert page.row("pre")[:3] == ["pre", "knet_lite0", "backbone"]
    assert page.row("pre")[-3:] == ["480", "1.15", "2 min"]
    assert page.row("pre")[-4] == "cosine, level=0"
    together = next(row for row in page.rows if row[0].strip() == "fine")
    assert [" ".join(cell.split()) for cell in together] == [
        *("fine", "tiny", "0, 1", "31.2 ± 8.8", "45.0 ± 7.1", "12.5 ± 0.0", "-", "30.0 ± 0.0", "20.0 ± 0.0")
    ]
    facts = " ".join(page.text.split())
    assert "3 finished 1 interrupted 1 failed 1 not begun 12 min of training" in facts
    assert "a/5.png" in facts
    assert "python -m pipelines.finetune --model knet_lite0 --seed 0" in facts
    assert "torch 1.2.3" in facts
    assert "initial.pth 2.0 MB" in facts
    assert "taken 2 left 1 own initialisation 0" in facts


def test_the_best_finished_runs_are_marked(work, make_report, make_run):
    make_run(work / "fine-seed2", seed=2, scores={"AP": 0.37501, "AP50": 0.5, "AP75": 0.125})  # shown as 37.5
    make_report(work)
    html = (work / "report.html").read_text()
    assert re.findall(r'class="n best">([^<]*)<', html) == ["37.5", "50.0", "37.5", "50.0"]  # AP75 is the same for all


def test_a_run_says_what_distinguishes_it_and_where_its_weights_are_from(work, make_report):
    page, _ = make_report(work)
    assert page.row("randomness.seed") == ["randomness.seed", "0", "1"]
    assert not any(row[0].startswith("work_dir") for row in page.rows)
    parent = next(attributes for tag, attributes in page.tags if tag == "a" and attributes.get("title") == "pre")
    assert parent["href"].removeprefix("#") in page.ids


def test_the_page_needs_nothing_else(work, make_report, make_run):
    page, _ = make_report(work)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        target = attributes.get("href", "#")
        assert target == "#" or target.removeprefix("#") in page.ids
    html = (work / "report.html").read_text()
    assert "@import" not in html
    assert "url(" not in html
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


def test_nothing_that_is_shown_becomes_part_of_the_page(tmp_path, make_run, make_report):
    name = 'a"b<i>&amp;'
    run = make_run(tmp_path / name, classes=(EVIL,), init=EVIL, command=["python", EVIL, "--dataset", EVIL])
    make_run(tmp_path / "other", init="sp", lr=EVIL)
    (run / "transfer.txt").write_text(f"Initial weights: {EVIL}\n")
    (run / "non_finite.json").write_text(EVIL)
    tables = tmp_path / "tables"
    tables.mkdir()
    table = {"title": EVIL, "heading": [EVIL, "AP"], "rows": [[EVIL, "1.0"]], "notes": [EVIL], "commands": [EVIL]}
    (tables / "a.json").write_text(json.dumps(table))
    page, _ = make_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert len(re.findall("<script", html)) == 1  # ours
    assert "alert('1')" not in html.replace("&#39;", "")
    assert EVIL in page.text
    assert name in page.text
    assert "<i>" not in html


def test_shards_tables_and_figures_are_shown(tmp_path, write_shards, make_record, rectangles, make_report):
    masks = rectangles([(0, 0, 20, 20), (8, 8, 40, 40)], 48, 64)
    shards = write_shards([[make_record(1, "1.png", masks, np.zeros((2, 4)))]])
    for folder in ("tables", "figures"):
        (tmp_path / folder).mkdir()
    table = {
        "title": "Matching",
        "number": 5,
        "scale": "demo",
        "heading": ["matching", "AP", "AP50"],
        "rows": [["cosine", "9.5 ± 0.5", "20.0"], ["none", "10.1 ± 0.1", "-"]],
        "paper": [["cosine", "34.6", "71.1"], ["none", "31.3", "66.0"]],
        "notes": ["Small images."],
        "runs": ["runs/a"],
        "commands": ["python -m pipelines.finetune"],
        "machine": "two cores",
        "seconds": 7500,
    }
    (tmp_path / "tables" / "table5.json").write_text(json.dumps(table))
    Image.fromarray(np.zeros((30, 2400, 3), np.uint8)).save(tmp_path / "figures" / "figure6.png")
    (tmp_path / "figures" / "figure6.json").write_text(
        json.dumps({"sp": {"run": "a", "images": 5000, "entropy": 6.54321}, "pseudo": {}})
    )
    about = {
        "title": "Kernels",
        "number": 6,
        "pictures": ["figure6.png"],
        "notes": ["Seed 3."],
        "commands": ["draw it"],
    }
    (tmp_path / "figures" / "figure6.about.json").write_text(json.dumps(about))
    page, printed = make_report(tmp_path)
    assert "1 shard sets, 1 tables, 1 figures" in printed
    assert page.row("cosine") == ["cosine", "9.5 ± 0.5 34.6", "20.0 71.1"]
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'class="n best">([^<]*)<', html) == ["10.1 ± 0.1"]
    assert page.row("sp") == ["sp", "5,000", "6.543"]
    text = " ".join(page.text.split())
    for expected in (
        "Table 5: Matching (demo scale)",
        "Small images.",
        "Took 2 h 05 min.",
        "Made on two cores.",
        "Figure 6: Kernels",
        "Seed 3.",
        "draw it",
    ):
        assert expected in text
    assert "images 1 proposals 2 (2.0 an image) images that failed 0" in text
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)

    shutil.rmtree(shards.image_root)
    page, printed = make_report(tmp_path)
    assert "1 notes on what could not be read" in printed
    assert "shards: no contact sheet beside it, and none could be drawn (1.png does not exist)" in page.text
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(shards.directory / "contact_sheet.png")
    page, printed = make_report(tmp_path)
    assert "notes" not in printed


DAMAGE = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"\x00\xff\xfe",
    b'{"step": "x", "processes": 3, "AP": {}, "taken": 1}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_noted_or_passed_over(work, make_report, damage):
    log = "20260101_100000"
    files = ["config.py", "finished.json", "curve.json", "transfer.json", "transfer.txt", "commands.jsonl"]
    for number, file in enumerate([*files, "non_finite.json", f"{log}/vis_data/scalars.json", f"{log}/{log}.log"]):
        broken = work / f"broken{number}"
        shutil.copytree(work / "half", broken)
        (broken / file).write_bytes(damage)
    for path in ("tables/a.json", "figures/a.png", "figures/a.json", "figures/a.about.json", "shards/manifest.json"):
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_bytes(damage)
    page, printed = make_report(work)
    assert "notes on what could not be read" in printed
    for noted in ("tables/a.json: ", "figures/a.png: ", "figures/a.about.json: ", "shards: "):
        assert noted in page.text
    assert page.row("fine-seed0")[3] == "25.0"


def test_files_that_have_gone_are_no_faults(work, make_report):
    for file in ("commands.jsonl", "transfer.json", "transfer.txt", "initial.pth"):
        (work / "fine-seed0" / file).unlink()
    shutil.rmtree(work / "fine-seed0" / "20260101_100000")
    page, printed = make_report(work)
    assert "notes" not in printed
    assert page.row("fine-seed0")[:5] == ["fine-seed0", "KNet", "sp", "25.0", "50.0"]


def test_a_hundred_runs_make_a_page_of_a_few_megabytes(tmp_path, make_run, make_report):
    first = make_run(tmp_path / "run0", 1, finished=True)
    long = "".join(f"setting{n} = dict(type='Something', value={n})\n" for n in range(100))
    text = long + (first / "config.py").read_text()
    for number in range(100):
        run = tmp_path / f"run{number}"
        if number:
            shutil.copytree(first, run)
        changed = text.replace("seed=0", f"seed={number % 3}").replace("lr=0.1", f"lr=0.{number}")
        (run / "config.py").write_text(changed)
    make_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert len(re.findall('<details class="run">', html)) == 100
    assert len(html) < 100 * 40_000


def test_pictures_end_where_a_page_has_enough(tmp_path, make_report, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 60_000)
    (tmp_path / "figures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / "figures" / f"{number}.png")
    page, printed = make_report(tmp_path)
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    assert "figures/3.png: not shown, the page has pictures enough" in page.text
    assert "2 notes" in printed
