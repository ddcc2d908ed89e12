import os
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout

import pytest
import torch.distributed as dist

from stage1_proposals.common.errors import UserError
from stage2_training.engine.distributed import is_rank_zero, on_rank_zero, process_group


def test_joining_imports_no_mmengine():
    """MMEngine looks for GPUs when it is imported, so `--device cpu` must be able to hide them after joining."""
    code = "import sys, stage2_training.engine.distributed; sys.exit('mmengine' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_alone_everything_is_ones_own():
    assert is_rank_zero()
    assert on_rank_zero(lambda: 3) == 3


def test_the_first_works_and_all_learn_of_it(in_processes, tmp_path):
    def work() -> str:
        (tmp_path / f"by_{dist.get_rank()}").touch()
        return "done"

    assert in_processes(2, lambda rank: (is_rank_zero(), on_rank_zero(work))) == [(True, "done"), (False, "done")]
    assert [path.name for path in tmp_path.glob("by_*")] == ["by_0"]

    def fail() -> None:
        raise UserError("a.pth: no such file")

    errors = in_processes(2, lambda rank: on_rank_zero(fail))
    assert [(type(error), str(error)) for error in errors] == [(UserError, "a.pth: no such file")] * 2


def test_of_several_errors_one_gets_through_and_only_the_first_process_prints(tmp_path):
    """As torchrun would start them; a process writes down what it printed and how it ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            try:
                with open(tmp_path / f"{rank}.txt", "w") as out, redirect_stdout(out), process_group("cpu"):
                    print("trained", flush=True)
                    dist.barrier()
                    if rank == 1:
                        time.sleep(0.3)
                    raise UserError("no image")
            except UserError:
                if rank == 0:
                    time.sleep(2)  # it holds the store; torchrun would
                os._exit(7)
            except SystemExit as left:
                os._exit(left.code)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [7, 2]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["trained\n", ""]


@pytest.fixture(autouse=True)
def alone():
    """No test leaves a process group behind."""
    yield
    assert not dist.is_initialized()
