"""`make table N=proposals`: what it makes, prints and refuses."""

import json
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.proposals import read_settings
from pipelines.proposals_table import HEADING, describe
from pipelines.tables import build_parser, main
from stage1_proposals.analysis.statistics import to_coco
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import ShardSet

SMALL = ("--short-side", 64, "--long-side", 128, "--workers", 0)


def run(*argv: object) -> int:
    return cli.run(main, build_parser(), [str(part) for part in argv])


@pytest.fixture(scope="module")
def made(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards of the small images with at most three proposals each, and these as labels. Not to be changed."""
    root = tmp_path_factory.mktemp("made")
    generator = build_generator({"max_proposals": 3})
    settings = JobSettings(images_per_shard=7, short_side=64, long_side=128)
    job = Job(list_images(image_folder), Recipe(generator, "lite0_imagenet", None, "cpu", settings=settings))
    run_job(job, root / "shards", 0, lambda _: None)
    labels = root / "labels.json"
    labels.write_text(json.dumps(to_coco(ShardSet.open(root / "shards").records())))
    return root / "shards", labels


def table_of(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The cells of the Markdown table printed last."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_shards_score_100_against_their_own_proposals(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shards, labels = made
    assert run("proposals", "--shards", shards, shards, "--labels", labels, "--markdown") == 0
    heading, rule, first, second = table_of(capsys)
    proposals = ShardSet.open(shards).proposal_count
    assert heading == list(HEADING)
    assert rule == ["---"] * 2 + ["---:"] * 9
    expected = ["saliency max_proposals=3", "lite0_imagenet", "64", "12", f"{proposals / 12:.1f}", *["100.00"] * 6]
    assert first == second == expected


def test_what_is_missing_is_made_and_what_is_there_is_kept(
    made: tuple[Path, Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, labels = made
    given = ("proposals", "--images", image_folder, "--labels", labels, "--work-dir", tmp_path, *SMALL, "--markdown")
    assert run(*given, "--generators", "random") == 0
    (_, _, random_row) = table_of(capsys)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert run(*given) == 0
    rows = {row[0]: row[1:] for row in table_of(capsys)[2:]}
    assert list(rows) == ["saliency", "freemask", "random", "import file=labels.json"]
    assert rows["random"] == random_row[1:]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert {path.parent.name for path in tmp_path.rglob("*.h5")} == {"saliency", "freemask", "random", "labels"}
    assert rows["import file=labels.json"][4:] == ["100.00"] * 6
    assert float(rows["saliency"][6]) > float(rows["random"][6])  # the labels are among its proposals


def test_a_settings_default_is_not_worth_a_word() -> None:
    assert describe(json.loads(json.dumps(build_generator({}).parameters())) | {"short_side": 64}) == "saliency"
    changed = build_generator(
        read_settings(None, "freemask", ["seed_grid=[3, 4]", "min_score=0.5"])["generator"]
    ).parameters()
    assert describe(json.loads(json.dumps(changed))) == "freemask seed_grid=[3, 4] min_score=0.5"
    assert describe({"name": "my_module:Mine", "parts": 3, "short_side": 800, "long_side": 1333}) == (
        "my_module:Mine parts=3"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name shard sets with --shards, or images with --images"),
        (["--images", "{tmp}"], "where to make sets with --work-dir"),
        (["--shards", "{tmp}", "--work-dir", "{tmp}/w"], "where to make sets with --work-dir"),
        (["--shards", "{tmp}"], "{tmp}: no shard set here"),
        (["--shards", "{tmp}", "--labels", "{tmp}/gone.json"], "labels {tmp}/gone.json: cannot be read"),
        (["--images", "{tmp}/gone", "--work-dir", "{tmp}/w"], "image folder {tmp}/gone: no such folder"),
        (["--images", "{tmp}", "--work-dir", "{tmp}/w", "--generators", "magic"], "no generator 'magic'"),
        (
            ["--images", "{tmp}", "--work-dir", "{tmp}/w", "--generators", "gone.json"],
            "gone.json: no such file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    made: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run("proposals", "--labels", made[1], *(option.replace("{tmp}", str(tmp_path)) for option in options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.replace("{tmp}", str(tmp_path)) in line
    assert not (tmp_path / "w").exists()


def test_debug_goes_behind_the_tables_name_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("proposals", "--labels", "gone.json", "--shards", "gone", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_table_that_is_not_there_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("gossip")
    assert "invalid choice: 'gossip'" in capsys.readouterr().err
