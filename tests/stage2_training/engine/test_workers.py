import os
import signal
import subprocess
import sys
import time

import pytest
from torch.utils.data import DataLoader

from stage2_training.engine.distributed import bind_workers

# Two workers fill their queues and wait, like those of a run that is killed while it trains.
KILLED_RUN = """
import os, sys, time
from torch.utils.data import DataLoader
from stage2_training.engine.distributed import bind_workers

class Pids:
    def __len__(self): return 1000
    def __getitem__(self, index): return os.getpid()

for pids in bind_workers(DataLoader(Pids(), num_workers=2, batch_size=1)):
    print(int(pids), flush=True)
    time.sleep(0.2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
def test_workers_die_with_a_killed_run():
    run = subprocess.Popen([sys.executable, "-c", KILLED_RUN], stdout=subprocess.PIPE, text=True)
    workers = {int(run.stdout.readline()) for _ in range(4)}
    assert len(workers) == 2
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 3  # torch itself looks every 5 s, where it does not hang
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_loaders_own_initialisation_still_runs():
    started = []
    loader = bind_workers(DataLoader([1, 2], worker_init_fn=started.append))
    if sys.platform != "linux":
        loader.worker_init_fn(3)
        assert started == [3]
        return
    pid = os.fork()  # binding this process itself would end the tests with whoever started them
    if pid == 0:
        loader.worker_init_fn(3)
        os._exit(0 if started == [3] else 1)
    assert os.waitpid(pid, 0)[1] == 0
