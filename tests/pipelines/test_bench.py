"""`make bench`: which benchmarks there are, and what they refuse."""

import pytest

from pipelines import cli
from pipelines.bench import BENCHMARKS, build_parser, main


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_measures_and_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.run(main, build_parser(), [name, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert str(BENCHMARKS[name].__doc__) in printed


def test_a_benchmark_that_is_not_there_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run(main, build_parser(), ["gossip"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "invalid choice: 'gossip'" in line


def test_images_that_are_not_there_are_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(main, build_parser(), ["proposals", "--images", "gone"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gone: no such folder" in line
