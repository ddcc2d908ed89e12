"""A command in two processes, and commands run as steps."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch

from pipelines import launch
from pipelines.__main__ import run
from pipelines.options import Command, device_option
from stage1_proposals.common.errors import UserError
from stage2_training.engine import distributed

ROOT = Path(__file__).parents[2]
# A command that takes no time to import.
COMMAND = """
import sys, time
import click
import torch.distributed as dist
from pipelines.__main__ import run
from pipelines.launch import one_process_per_gpu
from pipelines.options import Command, device_option
from stage1_proposals.common.errors import UserError

@click.command(cls=Command)
@click.argument("what")
@device_option
@one_process_per_gpu
def command(what, device):
    print("hello from", dist.get_rank(), flush=True)
    open(f"{what}_{dist.get_rank()}", "w").close()
    dist.barrier()
    if what == "error":
        raise UserError("no image")
    dist.barrier() if dist.get_rank() == 0 else time.sleep(60)

if __name__ == "__main__":
    sys.exit(run(command, sys.argv[1:]))
"""
CALLS: list[str] = []


@click.command(cls=Command)
@click.argument("what")
@device_option
@launch.one_process_per_gpu
def command(what: str, device: str | None) -> None:
    CALLS.append(what)


@click.command(cls=Command)
@click.argument("what")
def start_two(what: str) -> None:
    distributed.start_processes(["-m", "command", what, "--device", "cpu"], 2, "cpu")


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the signal handlers, which torchrun replaces for good."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in handled}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("what", "code", "said"),
    [("error", 2, "error: no image\n"), ("interrupt", 130, "\nInterrupted; run the same command again to resume.\n")],
)
def test_all_end_together_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    what: str,
    code: int,
    said: str,
) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def interrupt() -> None:
        while not all((tmp_path / f"interrupt_{rank}").exists() for rank in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    if what == "interrupt":
        threading.Thread(target=interrupt, daemon=True).start()
    ended: int | str | None
    try:
        ended = run(start_two, [what])
    except SystemExit as error:
        ended = error.code
    printed = capfd.readouterr()
    assert (ended, printed.out, printed.err) == (code, "hello from 0\n", said)


def test_what_ended_the_processes_is_passed_on() -> None:
    message = r"process 2 of 8 was killed \(SIGKILL\), which ended all; finished checkpoints are kept"
    with pytest.raises(UserError, match=message):
        distributed._report_failures({1: -signal.SIGKILL}, 8)
    for codes, code in (({0: -signal.SIGTERM, 3: 2}, 2), ({0: 1}, 1), ({0: 1, 1: 2}, 2)):
        with pytest.raises(SystemExit) as ended:
            distributed._report_failures(codes, 8)
        assert ended.value.code == code


def test_more_processes_than_gpus_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, ["x", "--gpus", "99"]) == 2
    message = f"--gpus 99: torch finds {torch.cuda.device_count()} GPUs here; use fewer, or --device cpu"
    assert capsys.readouterr().err == f"error: {message}\n"


def test_one_process_is_this_one() -> None:
    CALLS.clear()
    assert run(command, ["x", "--gpus", "1"]) == 0
    assert CALLS == ["x"]


def test_a_step_is_shown_as_a_user_would_type_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch.step("A start", "recall", "--help", Path("a b")) > 0
    printed = capfd.readouterr().out
    assert printed.startswith("\n== A start\n$ python -m pipelines recall --help 'a b'\nUsage: ")
    assert printed.splitlines()[-1].startswith("== ")


def test_a_step_that_fails_prints_its_own_message_first(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="step `gossip` ended with exit code 2; run the same command again"):
        launch.step("No such command", "gossip")
    assert "No such command 'gossip'" in capfd.readouterr().err


def test_a_step_that_was_killed_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(UserError, match=r"step `demo` was killed \(SIGKILL\); run the same command again"):
        launch.step("Too large", "demo")


WORKER = """#!/bin/sh
case $3 in
    first) until [ -e begun ]; do sleep 0.01; done; echo one;;
    second) echo "two, $OMP_NUM_THREADS threads"; touch begun;;
    bad) until [ -e begun ]; do sleep 0.01; done; echo too bad; exit 2;;
    endless) trap 'echo interrupted; exit 130' INT; touch begun; while :; do sleep 0.01; done;;
esac
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands are `WORKER`, which sees `tmp_path`, on four cores."""
    (tmp_path / "python").write_text(WORKER)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("worker")
def test_steps_at_once_share_the_cores_and_print_one_after_the_other(capfd: pytest.CaptureFixture[str]) -> None:
    Path("output").mkdir()
    Path("output/second-2.txt").write_text("of a former start\n")
    launch.steps_at_once({"A": ["first"], "B": ["second", Path("x")]}, Path("output"))
    *lines, last = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line] == [
        "== A",
        "$ python -m pipelines first",
        "== B, its output in output/second-2.txt",
        "$ python -m pipelines second x",
        "one",
        "== B",
        "two, 2 threads",
    ]
    assert last.startswith("== ")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("steps", [["endless", "bad"], ["bad", "endless"]])
def test_a_step_that_fails_stops_those_beside_it(steps: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="step `bad` ended with exit code 2; run the same command again"):
        launch.steps_at_once({name: [name] for name in steps}, Path("output"))
    assert capfd.readouterr().out.count("too bad") == 1


SLEEPER = """
import signal, sys
from pipelines import launch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, as tests may be, ignore it
sys.executable = sys.argv[1]
try:
    launch.step("A long step", "demo")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_what_is_interrupted_does_not_outlive_it(tmp_path: Path) -> None:
    sleeping = tmp_path / "python"
    sleeping.write_text("#!/bin/sh\necho asleep\nexec sleep 60\n")
    sleeping.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(sleeping)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert [process.stdout.readline() for _ in range(4)][1:] == [
        "== A long step\n",
        "$ python -m pipelines demo\n",
        "asleep\n",
    ]
    begin = time.monotonic()
    # As a terminal does: every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"  # ends only when the child has closed it as well
    assert process.wait() == 0
    assert time.monotonic() - begin < launch.GRACE
