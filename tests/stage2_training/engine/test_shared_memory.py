import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from stage2_training.engine import shared_memory
from stage2_training.engine.shared_memory import RESERVE, fit_shared_memory

IMAGE = (3, 40, 50)


class Images:
    """Eight images, as a pipeline packs them."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        sample = DetDataSample(metainfo={"img_id": index})
        return {"inputs": torch.full(IMAGE, index, dtype=torch.uint8), "data_samples": sample}


def batches(workers: int = 2, **options):
    loader = DataLoader(Images(), batch_size=4, num_workers=workers, collate_fn=pseudo_collate, **options)
    return list(fit_shared_memory(loader))


def have(monkeypatch, free: int) -> None:
    """Let shared memory have so many free bytes, in this process and its workers."""
    statvfs = os.statvfs

    def pretend(path):
        return SimpleNamespace(f_bavail=free, f_frsize=1) if path == "/dev/shm" else statvfs(path)

    monkeypatch.setattr(shared_memory.os, "statvfs", pretend)


BATCH = 4 * 3 * 40 * 50
ENOUGH = RESERVE + 3 * BATCH + 1


@pytest.mark.parametrize(("free", "shared"), [(0, False), (ENOUGH - 1, False), (ENOUGH, True)])
def test_batches_use_shared_memory_only_while_each_worker_has_room(monkeypatch, free, shared):
    have(monkeypatch, free)
    first, second = batches(workers=2)
    for number, batch in enumerate((first, second)):
        assert [image.is_shared() for image in batch["inputs"]] == [shared] * 4
        assert [int(image.max()) for image in batch["inputs"]] == [4 * number + place for place in range(4)]
        assert [sample.img_id for sample in batch["data_samples"]] == [4 * number + place for place in range(4)]


def test_a_system_without_such_a_folder_shares(monkeypatch):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", "/gone")
    assert batches()[0]["inputs"][0].is_shared()


def test_without_workers_nothing_changes(monkeypatch):
    have(monkeypatch, 0)
    assert len(batches(workers=0)[0]["inputs"]) == 4


def test_all_processes_of_a_run_count(monkeypatch):
    monkeypatch.setattr(shared_memory, "get_world_size", lambda: 4)
    have(monkeypatch, RESERVE + 9 * BATCH)
    assert not batches(workers=2)[0]["inputs"][0].is_shared()
    have(monkeypatch, RESERVE + 9 * BATCH + 1)
    assert batches(workers=2)[0]["inputs"][0].is_shared()


# More than fits is on its way at once: 2 workers with 2 batches of 2 MB each.
LOADING = """
import torch
from torch.utils.data import DataLoader
from stage2_training.engine.shared_memory import fit_shared_memory

loader = DataLoader([torch.ones(2**19)] * 20, num_workers=2, collate_fn=list)
print(sum(int(batch[0].sum()) for batch in fit_shared_memory(loader)))
"""


def in_shared_memory_of(size: str, *command: str) -> subprocess.CompletedProcess:
    """Run a command in a mount namespace of its own, as a container has one."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_a_small_shared_memory_neither_ends_nor_stops_a_run():
    try:
        if in_shared_memory_of("4m", "true").returncode:
            pytest.skip("needs the right to mount")
    except FileNotFoundError:
        pytest.skip("needs unshare")
    run = in_shared_memory_of("4m", sys.executable, "-c", LOADING)
    assert run.stdout.split() == [str(20 * 2**19)], run.stderr
