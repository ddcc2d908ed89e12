"""Runs are executed once, in order and resumed; several at once with processes that do nothing but wait."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import launch
from pipelines.experiments.execute import execute, is_finished, print_plan, record_start, state
from pipelines.experiments.paper import TABLES
from pipelines.experiments.plan import Plan, Run
from pipelines.experiments.scales import PAPER, Scale
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import Manifest, ShardEntry
from tests.shard_sets import make_request

# Writes what it was started with; `until` names the file that it waits for.
STAND_IN = """#!{python}
import os, pathlib, sys, time
given = dict(zip(sys.argv[4::2], sys.argv[5::2]))
out = pathlib.Path(given["--work-dir"])
out.mkdir(parents=True, exist_ok=True)
(out / "started").write_text(os.environ["OMP_NUM_THREADS"])
print("hello from", sys.argv[3], flush=True)
if "--exit" in given:
    sys.exit(int(given["--exit"]))
while "--until" in given and not pathlib.Path(given["--until"]).exists():
    time.sleep(0.01)
(out / "finished.json").write_text("{{}}")
"""


@pytest.fixture
def plan(tiny: Scale, tmp_path: Path) -> Plan:
    return Plan(tiny, tmp_path / "demo")


@pytest.fixture
def runs(plan: Plan) -> list[Run]:
    """Data, shards, then two pre-trainings, each before its fine-tuning."""
    return plan.runs(TABLES[4], [0])


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are `STAND_IN`, on four cores."""
    program = tmp_path / "python"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(launch, "POLL", 0.01)
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)


def names(commands) -> list[str]:
    return [words[0] for words in commands.seen]


def test_all_runs_are_made_once(commands, runs: list[Run], capsys) -> None:
    execute(runs)
    assert names(commands) == ["data", "proposals", "pretrain", "finetune", "pretrain", "finetune"]
    capsys.readouterr()
    execute(runs)
    assert len(commands.seen) == 6
    assert capsys.readouterr().out == "== 6 of 6 runs are finished\n"


@pytest.mark.parametrize(("code", "error"), [(2, UserError), (-9, UserError), (130, KeyboardInterrupt)])
def test_an_interrupted_run_is_resumed(commands, runs: list[Run], code: int, error) -> None:
    commands.codes[3] = code
    with pytest.raises(error):
        execute(runs)
    assert len(commands.seen) == 3
    assert not is_finished(runs[2])
    execute(runs)
    assert commands.seen[3] == commands.seen[2]
    assert len(commands.seen) == 7
    assert is_finished(runs[2])


def test_seconds_of_all_starts_are_added(runs: list[Run]) -> None:
    record_start(runs[0], 60.0, finished=False)
    record_start(runs[0], 30.0, finished=True)
    assert state(runs[0]) == {"finished": True, "seconds": 90.0}


def test_a_failed_start_that_cannot_be_recorded_keeps_its_own_error(runs: list[Run]) -> None:
    runs[0].directory.with_name(f"{runs[0].name}.json").mkdir(parents=True)
    record_start(runs[0], 1.0, finished=False)
    with pytest.raises(UserError, match=r"\.json: cannot be written"):
        record_start(runs[0], 1.0, finished=True)


def test_a_deleted_directory_is_made_again(commands, runs: list[Run]) -> None:
    execute(runs)
    shutil.rmtree(runs[1].directory)
    execute(runs)
    assert names(commands)[6:] == ["proposals"]


def test_half_a_shard_set_is_not_finished(commands, runs: list[Run]) -> None:
    execute(runs)
    entry = ShardEntry("shard-00000-of-00001.h5", 3, 9, 0, "ab")
    for entries in (None, (entry,)):  # unfinished; finished, but its shard is missing
        Manifest(make_request(), entries).write(runs[1].directory)
        assert not is_finished(runs[1])
    (runs[1].directory / entry.file).touch()
    assert is_finished(runs[1])


@pytest.mark.parametrize(("number", "file"), [(0, "complete.json"), (2, "finished.json"), (3, "finished.json")])
def test_a_run_without_its_last_file_is_not_finished(commands, runs: list[Run], number: int, file: str) -> None:
    execute(runs)
    assert is_finished(runs[number])
    (runs[number].directory / file).unlink()
    assert not is_finished(runs[number])


def test_another_table_makes_only_its_own_runs(commands, plan: Plan, runs: list[Run]) -> None:
    execute(runs)
    execute(plan.runs(TABLES[5], [0]))
    assert names(commands)[6:] == ["pretrain", "finetune"] * 3  # not those of the cosine row
    assert not any("cosine" in word for words in commands.seen for word in words)


def test_real_data_is_finished_once_its_command_was(tmp_path: Path) -> None:
    run = Plan(PAPER, tmp_path).data("ctw1500")
    record_start(run, 1.0, finished=False)
    assert not is_finished(run)
    record_start(run, 1.0, finished=True)
    assert is_finished(run)


def test_a_plan_says_how_far_everything_is_and_runs_nothing(commands, runs: list[Run], capsys) -> None:
    commands.codes[4] = 130
    with pytest.raises(KeyboardInterrupt):
        execute(runs)
    runs[3].directory.mkdir(parents=True)
    capsys.readouterr()
    print_plan(runs)
    lines = capsys.readouterr().out.splitlines()
    assert len(commands.seen) == 4
    states = [line.partition(": ")[2] for line in lines[:-2:2]]
    assert states == ["finished"] * 3 + ["started", "pending", "pending"]
    assert lines[7].startswith("     $ python -m pipelines finetune --model knet_lite0 --dataset demo ")
    assert lines[-1] == "6 runs, 3 of them finished."


@pytest.fixture
def make_run(tmp_path: Path):
    """A function that makes a run of `STAND_IN`."""

    def make(name: str, *words: str, after: tuple[Run, ...] = ()) -> Run:
        directory = tmp_path / "demo" / "runs" / name
        given = ("pretrain", *words, "--work-dir", str(directory))
        return Run(tmp_path / "demo", name, given, directory / "finished.json", after)

    return make


@pytest.mark.usefixtures("processes")
def test_several_runs_at_once_each_after_its_dependencies(make_run, tmp_path: Path, capsys) -> None:
    go = tmp_path / "demo" / "go"
    pair = [make_run("a", "--until", str(go)), make_run("b")]
    last = make_run("last", "--shards", str(pair[1].directory), after=(pair[1],))
    proof = last.directory / "finished.json"
    watch = subprocess.Popen(["sh", "-c", f"until [ -e {proof} ]; do sleep 0.01; done; touch {go}"])
    execute([*pair, last], 2)  # `a` ends only after `last`, which comes after `b`
    assert watch.wait() == 0
    assert all(is_finished(run) for run in (*pair, last))
    assert (last.directory / "started").read_text() == "2"  # of four cores
    assert (tmp_path / "demo" / "output" / "last.txt").read_text() == "hello from pretrain\n"
    capsys.readouterr()
    execute([*pair, last], 2)
    assert capsys.readouterr().out == "== 3 of 3 runs are finished\n"


@pytest.mark.usefixtures("processes")
def test_a_failed_run_stops_the_others_and_shows_its_output(make_run, capsys) -> None:
    forever, failing = make_run("forever", "--until", "never"), make_run("failing", "--exit", "2")
    start = time.monotonic()
    with pytest.raises(UserError, match="step `pretrain` ended with exit code 2"):
        execute([forever, failing], 2)
    assert time.monotonic() - start < 10
    assert "hello from pretrain\n" in capsys.readouterr().out
    assert not is_finished(forever)
    assert not is_finished(failing)
    assert state(forever)["seconds"] > 0


@pytest.mark.usefixtures("processes")
def test_ctrl_c_in_a_run_ends_all(make_run) -> None:
    runs = [make_run("interrupted", "--exit", "130"), make_run("forever", "--until", "never")]
    with pytest.raises(KeyboardInterrupt):
        execute(runs, 2)
    assert not any(map(is_finished, runs))
