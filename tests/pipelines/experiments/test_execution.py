"""Runs are made once, in order, and gone on with; what is expected of them is what was measured."""

from pathlib import Path

import pytest

from pipelines.experiments.execution import execute, print_plan
from pipelines.experiments.paper import TABLES
from pipelines.experiments.plan import data_run
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import PAPER, Scale
from pipelines.experiments.tabulation import table_runs
from pipelines.experiments.workspace import Workspace
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import Manifest
from tests.shard_sets import make_request


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "demo")


@pytest.fixture
def runs(tiny: Scale) -> list[Run]:
    """Data, shards, then two pre-trainings, each before its fine-tuning."""
    return table_runs(TABLES[4], tiny, [0])


def modules(commands) -> list[str]:
    return [words[0] for words in commands.seen]


def test_half_a_line_of_the_journal_costs_that_line_alone(runs: list[Run], workspace: Workspace) -> None:
    workspace.record(runs[0], 2.0, finished=True)
    journal = workspace.root / "runs.jsonl"
    journal.write_text(journal.read_text() + journal.read_text()[:20])
    workspace.record(runs[1], 3.0, finished=False)
    assert [start.seconds for start in workspace.journal()] == [2.0, 3.0]


def test_all_runs_are_made_once(commands, runs: list[Run], workspace: Workspace, capsys) -> None:
    execute(runs, workspace)
    assert modules(commands) == ["prepare_data", "proposals", "pretrain", "finetune", "pretrain", "finetune"]
    execute(runs, workspace)
    assert len(commands.seen) == 6
    assert capsys.readouterr().out.splitlines() == [
        f"== {number} of 6: {run.name}: finished" for number, run in enumerate(runs, 1)
    ]


@pytest.mark.parametrize("error", [UserError("step `pretrain` ended"), KeyboardInterrupt()], ids=type)
def test_what_stopped_goes_on_where_it_was(commands, runs: list[Run], workspace: Workspace, error) -> None:
    commands.fail[3] = error
    with pytest.raises(type(error)):
        execute(runs, workspace)
    assert len(commands.seen) == 3
    execute(runs, workspace)
    assert commands.seen[3] == commands.seen[2]
    assert len(commands.seen) == 7
    starts = [start.finished for start in workspace.journal() if start.run == runs[2].name]
    assert starts == [False, True]


def test_what_cannot_be_noted_of_a_start_that_failed_does_not_hide_why(
    commands, runs: list[Run], workspace: Workspace
) -> None:
    commands.fail[1] = UserError("the disk is full")

    def step(*words: str) -> float:
        (workspace.root / "runs.jsonl").mkdir()
        return commands.step(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.steps.step", step)
        with pytest.raises(UserError, match=r"^the disk is full$"):
            execute(runs, workspace)
    with pytest.raises(UserError, match=r"runs\.jsonl"):
        workspace.record(runs[0], 1.0, finished=True)


def test_another_table_makes_only_what_is_its_own(commands, tiny: Scale, runs: list[Run], workspace: Workspace) -> None:
    execute(runs, workspace)
    execute(table_runs(TABLES[5], tiny, [0]), workspace)
    assert modules(commands)[6:] == ["pretrain", "finetune"] * 3  # not the cosine row's
    assert not any("cosine" in word for words in commands.seen for word in words)


def test_half_a_shard_set_is_not_finished(runs: list[Run], workspace: Workspace) -> None:
    shards = runs[1]
    workspace.directory(shards).mkdir(parents=True)
    Manifest(make_request(), None).write(workspace.directory(shards))
    assert not workspace.finished(shards)
    assert workspace.begun(shards)


def test_real_data_is_finished_once_its_command_was(commands, tmp_path: Path) -> None:
    run, workspace = data_run("ctw1500", PAPER), Workspace(tmp_path)
    workspace.record(run, 1.0, finished=False)
    assert not workspace.finished(run)
    workspace.record(run, 1.0, finished=True)
    assert workspace.finished(run)


def test_expected_is_what_the_finished_ones_of_a_kind_took(tiny: Scale, workspace: Workspace) -> None:
    runs = [run for run in table_runs(TABLES[5], tiny, [0]) if run.module == "pretrain"]
    assert workspace.expected_seconds(runs[3]) == runs[3].rough
    workspace.record(runs[0], 60.0, finished=False)
    assert workspace.expected_seconds(runs[3]) == runs[3].rough
    workspace.record(runs[0], 30.0, finished=True)  # 90 together
    workspace.record(runs[1], 110.0, finished=True)
    workspace.record(runs[2], 500.0, finished=False)
    assert workspace.expected_seconds(runs[3]) == 100.0
    assert workspace.seconds()[runs[0].name] == 90.0


def test_a_plan_says_how_far_everything_is_and_runs_nothing(
    commands, runs: list[Run], workspace: Workspace, capsys
) -> None:
    commands.fail[4] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        execute(runs, workspace)
    workspace.directory(runs[3]).mkdir(parents=True)
    capsys.readouterr()
    print_plan(runs, workspace)
    lines = capsys.readouterr().out.splitlines()
    assert len(commands.seen) == 4
    states = [line.partition(": ")[2] for line in lines[:-2:2]]
    assert states[:3] == ["finished"] * 3
    assert states[3].startswith("begun, about ")
    assert states[4] == "to do, about 0 s"  # the other pre-training was measured
    assert lines[7].startswith("     $ python -m pipelines.finetune --model knet_lite0 --dataset demo ")
    assert lines[-1].startswith("6 runs, 3 of them finished. The others may take about ")


def test_a_plan_does_not_guess_how_long_the_papers_runs_take(tmp_path: Path, capsys) -> None:
    print_plan(table_runs(TABLES[1], PAPER, [0]), Workspace(tmp_path))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith(": to do, time not known")
    assert last == (
        "14 runs, 0 of them finished. How long 14 of the others take is not known: nothing like them was run here."
    )
