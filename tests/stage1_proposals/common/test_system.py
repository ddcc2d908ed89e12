"""Process-wide settings are made by a function; freed memory is reused; the device is what the user named."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stage1_proposals.common import system
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import ENVIRONMENT, available_memory, choose_device

ROOT = Path(__file__).parents[3]
PROGRAM = """
import resource
from stage1_proposals.common.system import keep_freed_memory
if how == "keep":
    keep_freed_memory()
block = b"x" * (32 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(program: str, **environment: str) -> str:
    """Run a program in a fresh process, with none of this project's environment variables but these."""
    inherited = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=inherited | environment, text=True)
    return done.stdout


SETTINGS = """
import json, logging, os, sys, warnings
from stage1_proposals.common import system
import stage1_proposals.images.decode, stage1_proposals.jobs.workers
from PIL import Image
def settings():
    environment = {name: os.environ.get(name) for name in system.ENVIRONMENT}
    return environment, Image.MAX_IMAGE_PIXELS, len(warnings.filters), logging.getLogger("PIL").level
before = settings()
system.configure_process()
once = settings()
system.configure_process()
print(json.dumps([before, once, settings()]))
"""


def test_settings_are_made_when_asked_for_and_not_on_import() -> None:
    user = {"GOMP_SPINCOUNT": "7"}  # stays
    before, once, twice = json.loads(run(SETTINGS, **user))
    assert before[0] == dict.fromkeys(ENVIRONMENT) | user
    assert before[1] != once[1] == 100_000_000
    assert once[2] == before[2] + 1
    assert once[0] == ENVIRONMENT | user
    assert twice == once


def test_they_can_be_made_before_anything_heavy_is_imported() -> None:
    program = "import sys; from stage1_proposals.common.system import choose_device, configure_process\n"
    program += "configure_process(); choose_device('cpu'); print({'torch', 'ray', 'mmengine'} & set(sys.modules))"
    assert run(program) == "set()\n"


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UserError, match=r"^device 'tpu': use cpu or cuda "):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_missing_is_refused_and_the_default_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(UserError, match=r"^device 'cuda': PyTorch finds no usable GPU on this machine; use cpu$"):
        choose_device("cuda")
    assert choose_device("cuda", on_cluster=True) == "cuda"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert choose_device(None) == choose_device(None, on_cluster=True) == "cpu"


def test_on_the_cpu_gpus_are_hidden_from_libraries() -> None:
    program = "from stage1_proposals.common.system import choose_device; print(choose_device('cpu'))\n"
    program += "import torch; from mmengine.device import get_device; print(torch.cuda.is_available(), get_device())"
    assert run(program, CUDA_VISIBLE_DEVICES="0") == "cpu\nFalse cpu\n"


def test_gpus_that_a_library_has_found_cannot_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose_device(None) == "cuda"
    with pytest.raises(RuntimeError, match="before MMEngine is imported"):
        choose_device("cpu")


def page_faults(how: str) -> int:
    return int(run(f"how = {how!r}\n{PROGRAM}"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_blocks_are_not_faulted_in_again() -> None:
    assert page_faults("keep") < page_faults("as it is") / 4


def test_free_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "MEMORY", tmp_path)
    assert available_memory() is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16000 kB\nMemAvailable: 8000 kB\nBuffers: 1 kB\n")
    assert available_memory() == 8000 * 1024
    first, second = tmp_path / "sys/fs/cgroup", tmp_path / "sys/fs/cgroup/memory"
    second.mkdir(parents=True)
    (first / "memory.max").write_text("max\n")
    (first / "memory.current").write_text("1000\n")
    assert available_memory() == 8000 * 1024
    (first / "memory.max").write_text("5000\n")
    assert available_memory() == 4000
    (second / "memory.limit_in_bytes").write_text("900\n")
    (second / "memory.usage_in_bytes").write_text("1000\n")
    assert available_memory() == 0


def test_this_machine_has_memory() -> None:
    assert not Path("/proc/meminfo").exists() or (available_memory() or 0) > 0
