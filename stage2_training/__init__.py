"""Stage 2: pre-training, fine-tuning and evaluation with MMDetection.

In Python: `from stage2_training import Predictor, finetune, pretrain`. They are imported when they are asked for.
"""

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

PUBLIC = {
    "Prediction": "stage2_training.inference.prediction",
    "Predictor": "stage2_training.inference.predictor",
    "Tiles": "stage2_training.inference.tiles",
    "finetune": "stage2_training.runs.finetuning",
    "pretrain": "stage2_training.runs.pretraining",
}


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import MMDetection without its messages about optional packages."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmdet.evaluation  # noqa: F401

        yield


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Predictor":
        return getattr(importlib.import_module(PUBLIC[name]), name)
    with quiet_imports():
        return getattr(importlib.import_module(PUBLIC[name]), name)
