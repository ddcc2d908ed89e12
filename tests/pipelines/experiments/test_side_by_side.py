"""Several runs at once, with processes that do in no time what the real commands do."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import steps
from pipelines.experiments import side_by_side
from pipelines.experiments.execution import execute
from pipelines.experiments.runs import Inside, Run
from pipelines.experiments.workspace import Workspace
from stage1_proposals.common.errors import UserError

# Writes what it was started with and when it was; `until` names what it waits for.
STAND_IN = """#!{python}
import os, pathlib, sys, time
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
out = pathlib.Path(given["--work-dir"])
out.mkdir(parents=True, exist_ok=True)
(out / "started").write_text(os.environ["OMP_NUM_THREADS"])
print("hello from", sys.argv[2], flush=True)
if "--exit" in given:
    sys.exit(int(given["--exit"]))
while "--until" in given and not pathlib.Path(given["--until"]).exists():
    time.sleep(0.01)
(out / "finished.json").write_text("{{}}")
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    program = tmp_path / "python"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(side_by_side, "POLL", 0.01)
    monkeypatch.setattr(steps, "GRACE", 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    return Workspace(tmp_path / "demo")


def run_of(label: str, *settings: str | Inside) -> Run:
    return Run("pretrain", label, settings, "--work-dir", kind="stand-in")


def test_runs_go_on_side_by_side_each_after_what_it_needs(workspace: Workspace, capsys) -> None:
    go = workspace.root / "go"
    pair = [run_of("a", "--until", str(go)), run_of("b")]
    last = run_of("last", "--shards", Inside(pair[1]))
    proof = workspace.directory(last) / last.proof
    watch = subprocess.Popen(["sh", "-c", f"until [ -e {proof} ]; do sleep 0.01; done; touch {go}"])
    execute([*pair, last], workspace, 2)  # `a` ends only after `last`, which comes after `b`
    assert watch.wait() == 0
    assert all(workspace.finished(run) for run in (*pair, last))
    assert (workspace.directory(last) / "started").read_text() == "2"  # of four cores
    assert (workspace.root / "output" / f"{last.name}.txt").read_text() == "hello from pipelines.pretrain\n"
    assert [start.finished for start in workspace.journal()] == [True] * 3
    capsys.readouterr()
    execute([*pair, last], workspace, 2)
    assert capsys.readouterr().out == "== 3 of 3 runs are finished\n"


def test_one_that_fails_stops_the_others_and_has_its_say(workspace: Workspace, capsys) -> None:
    forever, failing = run_of("forever", "--until", "never"), run_of("failing", "--exit", "2")
    begin = time.monotonic()
    with pytest.raises(UserError, match="step `pretrain` ended with exit code 2"):
        execute([forever, failing], workspace, 2)
    assert time.monotonic() - begin < 10
    assert "hello from pipelines.pretrain\n" in capsys.readouterr().out
    assert [start.finished for start in workspace.journal()] == [False, False]
    assert not workspace.finished(forever)


def test_ctrl_c_in_a_run_ends_all(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute([run_of("interrupted", "--exit", "130"), run_of("forever", "--until", "never")], workspace, 2)
    assert [start.finished for start in workspace.journal()] == [False, False]
