"""Commands of the project as steps; `pipelines.cli` stands for one, which does nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import steps
from stage1_proposals.common.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_step_is_shown_as_a_user_would_type_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert steps.step("A start", "cli", "--name", Path("a b")) > 0
    assert "== A start\n$ python -m pipelines.cli --name 'a b'\n== " in capfd.readouterr().out


def test_a_step_that_fails_has_its_own_say_first(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="step `gossip` ended with exit code 1; run the same command again"):
        steps.step("No such command", "gossip")
    assert "No module named pipelines.gossip" in capfd.readouterr().err


def test_a_step_that_was_killed_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(UserError, match=r"step `cli` was killed \(SIGKILL\); run the same command again"):
        steps.step("Too large", "cli")


SLEEPER = """
import signal, sys
from pipelines import steps
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, as tests may be, ignore it
child = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(60)"]
try:
    steps._run(child)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_what_is_interrupted_does_not_outlive_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "asleep\n"
    begin = time.monotonic()
    # As a terminal does: every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"  # ends only when the child has closed it as well
    assert process.wait() == 0
    assert time.monotonic() - begin < steps.GRACE
