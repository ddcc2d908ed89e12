"""Stage 1: images to HDF5 shards of pseudo masks. In Python: `from stage1_proposals import propose`."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "propose":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module("stage1_proposals.jobs.propose").propose
