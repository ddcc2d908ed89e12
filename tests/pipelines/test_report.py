"""The report of a directory with sound, unfinished, damaged and foreign files."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import report
from pipelines.report import find
from tests.made_runs import make_run
from tests.pipelines.command import run_command

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "<script>alert('1')</script>"
RECORD = {
    "title": "Matching",
    "number": 5,
    "scale": "demo",
    "notes": ["Small images."],
    "runs": ["runs/a"],
    "commands": ["python -m pipelines finetune"],
    "machine": "two cores",
    "seconds": 7500,
}


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
        assert run_command("report", "--work-dir", directory) == 0
        return Page((directory / "report.html").read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def work(tmp_path) -> Path:
    """Two finished runs, and one each that was interrupted, that failed, that never began and that pre-trained."""
    root = tmp_path / "work"
    make_run(root / "pre", pretraining=True, init="backbone", prompts={"matching": "cosine", "level": 0})
    make_run(root / "fine-seed0")
    make_run(root / "fine-seed1", seed=1, scores={"AP": 0.375, "AP50": 0.4})
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
        assert run_command("report", "--work-dir", directory) == 2
        assert capsys.readouterr().err == (
            f"error: {directory}: no runs, shard sets, tables or figures in there; "
            "name their directory with --work-dir (WORK_DIR=)\n"
        )
        assert not (directory / "report.html").exists()


def test_every_run_is_there_with_its_numbers(work, make_report):
    page, printed = make_report(work)
    assert re.fullmatch(rf"{work}/report.html: 6 runs \(0\.\d MB\)\n", printed)
    assert page.row("fine-seed0") == [
        *("fine-seed0", "finished", "KNet, ResNet-50", "sp", "4", "8", "0.1", "0"),
        *("25.0", "50.0", "12.5", "-", "30.0", "20.0", "-"),
    ]
    assert page.row("fine-seed1")[8:11] == ["37.5", "40.0", "-"]
    assert page.row("half")[1] == "interrupted"
    assert page.row("half")[8] == "25.0"  # of its latest evaluation
    assert page.row("nan")[1] == "failed"
    assert page.row("new")[1:9] == ["not started", "KNet, ResNet-50", "densecl", "4", "8", "0.1", "0", "-"]
    assert page.row("pre")[:4] == ["pre", "finished", "KNet, ResNet-50", "backbone"]
    assert page.row("pre")[-3:] == ["cosine", "480", "1.15"]
    facts = " ".join(page.text.split())
    for count in ("finished 3", "interrupted 1", "failed 1", "not started 1"):
        assert count in facts
    assert "python -m pipelines finetune --model knet_lite0 --seed 0" in facts
    assert "torch 1.2.3" in facts
    charts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert charts == ["Learning curves of data/tiny/test.json"]


def test_the_ap_of_each_class_is_shown(tmp_path, make_report):
    scores = {"AP": 0.3, "AP of <cat>": 0.5, "box_AP of <cat>": 0.25, "AP of dog": 0.1, "box_AP of dog": -1.0}
    make_run(tmp_path / "work" / "run", scores=scores, classes=["<cat>", "dog"])
    page, _ = make_report(tmp_path / "work")
    assert page.row("class") == ["class", "AP", "box AP"]
    assert page.row("<cat>") == ["<cat>", "50.0", "25.0"]
    assert page.row("dog") == ["dog", "10.0", "-"]


def test_the_page_needs_nothing_else(work, make_report):
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


def test_nothing_that_is_shown_becomes_part_of_the_page(tmp_path, make_report):
    name = 'a"b<i>&amp;'
    run = make_run(tmp_path / name, classes=[EVIL], init=EVIL, command=["python", EVIL, "--dataset", EVIL])
    make_run(tmp_path / "other", init="sp", lr=EVIL)
    (run / "non_finite.json").write_text(EVIL)
    tables = tmp_path / "tables"
    tables.mkdir()
    table = RECORD | {"title": EVIL, "heading": [EVIL, "AP"], "rows": [[EVIL, "1.0"]], "paper": [[EVIL, "2.0"]]}
    table |= {"notes": [EVIL], "commands": [EVIL], "machine": EVIL, "scale": EVIL}
    (tables / "a.json").write_text(json.dumps(table))
    page, _ = make_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert "alert('1')" not in html.replace("&#39;", "")
    assert EVIL in page.text
    assert name in page.text
    assert "<i>" not in html


def test_shards_tables_and_figures_are_shown(tmp_path, write_shards, make_record, rectangles, make_report):
    masks = rectangles([(0, 0, 20, 20), (8, 8, 40, 40)], 48, 64)
    shards = write_shards([[make_record(1, "1.png", masks, np.zeros((2, 4)))]])
    for folder in ("tables", "figures"):
        (tmp_path / folder).mkdir()
    table = RECORD | {
        "heading": ["matching", "AP", "AP50"],
        "rows": [["cosine", "9.5 ± 0.5", "20.0"], ["none", "10.1 ± 0.1", "-"]],
        "paper": [["cosine", "34.6", "71.1"], ["none", "31.3", "66.0"]],
    }
    (tmp_path / "tables" / "table5.json").write_text(json.dumps(table))
    Image.fromarray(np.zeros((30, 2400, 3), np.uint8)).save(tmp_path / "figures" / "figure6.png")
    (tmp_path / "figures" / "figure6.json").write_text(
        json.dumps({"sp": {"run": "a", "images": 5000, "entropy": 6.54321}, "pseudo": {}})
    )
    figure = RECORD | {"title": "Kernels", "number": 6, "pictures": ["figure6.png"], "notes": ["Seed 3."]}
    (tmp_path / "figures" / "figure6.record.json").write_text(json.dumps(figure | {"commands": ["draw it"]}))
    page, printed = make_report(tmp_path)
    assert "1 shard sets, 1 tables, 1 figures" in printed
    assert page.row("cosine") == ["cosine", "9.5 ± 0.5 (34.6)", "20.0 (71.1)"]
    text = " ".join(page.text.split())
    for expected in (
        "Table 5, at demo scale: Matching",
        "Small images.",
        "Made on two cores; the runs took 2 h 05 min, added up.",
        "Figure 6, at demo scale: Kernels",
        "Seed 3.",
        "draw it",
    ):
        assert expected in text
    assert "images 1 proposals 2 (2.0 per image) failed images 0" in text
    assert "No contact sheet: `make inspect` draws one." in text
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1
    assert images[0].startswith("data:image/jpeg;base64,")
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(shards.directory / "contact_sheet.png")
    page, printed = make_report(tmp_path)
    assert "notes" not in printed
    assert sum(tag == "img" for tag, _ in page.tags) == 2


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
    log, broken_runs = "20260101_100000", {}
    files = ["config.py", "config.json", "finished.json", "curve.json", "commands.jsonl"]
    for number, file in enumerate([*files, "non_finite.json", f"{log}/vis_data/scalars.json"]):
        broken = work / f"broken{number}"
        shutil.copytree(work / "half", broken)
        (broken / file).write_bytes(damage)
        broken_runs[broken.name] = file
    for path in ("tables/a.json", "figures/a.png", "figures/a.json", "figures/a.record.json", "shards/manifest.json"):
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_bytes(damage)
    page, printed = make_report(work)
    assert "notes on what could not be read" in printed
    for noted in ("tables/a.json: ", "figures/a.png: ", "figures/a.record.json: ", "shards: "):
        assert noted in page.text
    assert page.row("fine-seed0")[8] == "25.0"
    for name, file in broken_runs.items():
        assert any(row[0].split() == [name] for row in page.rows)  # with what is whole
        noted = file in ("config.json", "finished.json", "non_finite.json") and damage != DAMAGE[5]
        assert (f"{name}/{file}: " in page.text) == noted


def test_nothing_is_executed(work, make_report):
    code = f"open({str(work / 'proof')!r}, 'w')"
    (work / "fine-seed0" / "config.py").write_text(f"a = {code}\n")
    page, _ = make_report(work)
    assert code in page.text
    assert not (work / "proof").exists()


def test_a_run_of_before_its_settings_were_recorded_is_shown_without_them(work, make_report):
    (work / "fine-seed0" / "config.json").unlink()
    page, printed = make_report(work)
    assert "notes" not in printed
    assert page.row("fine-seed0")[1:4] == ["finished", "not recorded", "-"]
    assert page.row("fine-seed0")[8:10] == ["25.0", "50.0"]
    assert "Fine-tuning on not recorded" in " ".join(page.text.split())


def test_files_that_have_gone_are_no_faults(work, make_report):
    for file in ("commands.jsonl", "initial.pth"):
        (work / "fine-seed0" / file).unlink()
    shutil.rmtree(work / "fine-seed0" / "20260101_100000")
    page, printed = make_report(work)
    assert "notes" not in printed
    assert page.row("fine-seed0")[8:10] == ["25.0", "50.0"]


def test_a_chart_has_the_best_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_LINES", 2)
    drawn: list[list[str]] = []
    monkeypatch.setattr(report, "plot_curves", lambda curves, data: drawn.append(list(curves)))
    for name, score in (("a", 0.1), ("b", 0.3), ("c", 0.2)):
        make_run(tmp_path / name, scores={"AP": score})
    make_run(tmp_path / "new", 0)
    assert run_command("report", "--work-dir", tmp_path) == 0
    assert drawn == [["b", "c"]]


def test_a_hundred_runs_make_a_page_of_a_few_megabytes(tmp_path, make_report):
    first = make_run(tmp_path / "run0", 1, finished=True)
    long = "".join(f"setting{n} = dict(type='Something', value={n})\n" for n in range(100))
    for number in range(100):
        run = tmp_path / f"run{number}"
        if number:
            shutil.copytree(first, run)
        (run / "config.py").write_text(long + f"number = {number}\n")
    make_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert len(re.findall('<article id="run', html)) == 100
    assert len(html) < 100 * 40_000


def test_pictures_end_where_a_page_has_enough(tmp_path, make_report, monkeypatch):
    monkeypatch.setattr(report, "MAX_PICTURE_BYTES", 60_000)
    (tmp_path / "figures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / "figures" / f"{number}.png")
    page, printed = make_report(tmp_path)
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    assert "figures/3.png: not shown, the page has pictures enough" in page.text
    assert "2 notes" in printed


def test_only_runs_shards_tables_and_figures_are_found(tmp_path):
    make_run(tmp_path / "b" / "run")
    make_run(tmp_path / "a", 2)
    for path in (
        *("configs/config.py", "shards/manifest.json", "tables/1.json", "tables/1.md", "figures/1.png", "x.png"),
        *("figures/1.json", "figures/1.record.json", "x.record.json", "a/tables/of_a_run.json"),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert find(tmp_path) == {
        "runs": [tmp_path / "a", tmp_path / "b" / "run"],
        "shard sets": [tmp_path / "shards"],
        "tables": [tmp_path / "tables" / "1.json"],
        "pictures": [tmp_path / "figures" / "1.png"],
        "records": [tmp_path / "figures" / "1.record.json"],
    }
    assert not any(find(tmp_path / "configs").values())


@pytest.mark.parametrize(
    "change",
    [
        {"heading": None},
        {"heading": ["x", "y"]},
        {"rows": 3},
        {"rows": [["short"]]},
        {"notes": 3},
        {"number": "x"},
        {"seconds": "long"},
    ],
)
def test_what_is_no_table_is_listed(tmp_path, make_report, change):
    make_run(tmp_path / "run")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.json").write_text(json.dumps(RECORD | {"heading": ["x", "AP"]} | change))
    page, printed = make_report(tmp_path)
    assert "tables/a.json: " in page.text
    assert "1 notes" in printed


def test_a_record_names_pictures_beside_it_only(tmp_path, make_report):
    figures = tmp_path / "scale" / "figures"
    figures.mkdir(parents=True)
    for path in (figures / "a.png", figures / "c.png", tmp_path / "secret.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    record = RECORD | {"pictures": ["a.png", "../../secret.png"]}
    (figures / "figure4.record.json").write_text(json.dumps(record))
    page, printed = make_report(tmp_path)
    assert "2 figures" in printed
    assert "notes" not in printed
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == [
        "Figure 5, at demo scale: Matching",
        "scale/figures/c.png",
    ]
    (figures / "figure4.record.json").write_text(json.dumps(record | {"pictures": ["gone.png"]}))
    page, _ = make_report(tmp_path)
    assert "scale/figures/figure4.record.json: its pictures do not exist" in page.text
