"""What a benchmark ran on."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe(device: str) -> str:
    """Processor or GPU, and the versions that speed depends on."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cpu} ({torch.backends.cpu.get_cpu_capability()})"
    libraries = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "ray"))
    return f"{name}; Python {platform.python_version()}, {libraries}"
