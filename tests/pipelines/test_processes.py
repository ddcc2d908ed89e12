"""A command that starts itself in two processes, on something that takes no time to import."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pipelines import cli, processes
from stage1_proposals.common.errors import UserError

COMMAND = """
import sys, time
import torch.distributed as dist
from pipelines import cli
from pipelines.processes import one_per_gpu
from stage1_proposals.common.errors import UserError

@one_per_gpu("command")
def main(args):
    print("hello from", dist.get_rank(), flush=True)
    open(f"{args.what}_{dist.get_rank()}", "w").close()
    dist.barrier()
    if args.what == "error":
        raise UserError("no image")
    dist.barrier() if dist.get_rank() == 0 else time.sleep(60)

parser = cli.Parser()
parser.add_argument("what")
parser.add_argument("--gpus", type=int)
parser.add_argument("--device")
if __name__ == "__main__":
    sys.exit(cli.run(main, parser))
"""


def parser() -> cli.Parser:
    made = cli.Parser()
    made.add_argument("what")
    made.add_argument("--gpus", type=int)
    made.add_argument("--device")
    return made


@pytest.fixture
def signals():
    """torchrun answers signals for good."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {each: signal.getsignal(each) for each in handled}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [("error", 2, "error: no image\n"), ("interrupt", 130, "\nInterrupted; run the same command again to go on.\n")],
)
def test_all_end_together_with_one_line(tmp_path, monkeypatch, capfd, signals, what, code, said):
    (tmp_path / "command.py").write_text(COMMAND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(processes.__file__).parent.parent)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = [what, "--gpus", "2", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])

    def interrupt() -> None:
        while not all((tmp_path / f"interrupt_{rank}").exists() for rank in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    if what == "interrupt":
        threading.Thread(target=interrupt, daemon=True).start()
    main = processes.one_per_gpu("command")(lambda args: None)
    try:
        left = cli.run(main, parser(), arguments)
    except SystemExit as exit:
        left = exit.code
    printed = capfd.readouterr()
    assert (left, printed.out, printed.err) == (code, "hello from 0\n", said)


def test_what_ended_the_processes_is_passed_on():
    message = r"process 2 of 8 was killed \(SIGKILL\), which ended all; finished checkpoints are kept"
    with pytest.raises(UserError, match=message):
        processes._report({1: -signal.SIGKILL}, 8)
    for codes, code in (({0: -signal.SIGTERM, 3: 2}, 2), ({0: 1}, 1), ({0: 1, 1: 2}, 2)):
        with pytest.raises(SystemExit) as left:
            processes._report(codes, 8)
        assert left.value.code == code


def test_more_processes_than_gpus_is_a_user_error():
    main = processes.one_per_gpu("none")(lambda args: None)
    message = rf"--gpus 99: torch finds {torch.cuda.device_count()} GPUs here; use fewer, or --device cpu"
    with pytest.raises(UserError, match=message):
        main(parser().parse_args(["x", "--gpus", "99"]))


def test_one_process_is_started_by_nobody():
    called = []
    processes.one_per_gpu("none")(called.append)(parser().parse_args(["x", "--gpus", "1"]))
    assert len(called) == 1
