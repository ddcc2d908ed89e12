"""Stage 2: pre-training, fine-tuning and evaluation with MMDetection.

In Python: `from stage2_training import Predictor, finetune, pretrain`. They are imported when they are asked for.
"""

import gc
import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

PUBLIC = {
    "Prediction": "stage2_training.inference.prediction",
    "Predictor": "stage2_training.inference.predictor",
    "finetune": "stage2_training.runs.finetuning",
    "pretrain": "stage2_training.runs.pretraining",
}


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import MMDetection without its messages about optional packages.

    Python's garbage collector is spared what is imported, now and later: going through it takes a tenth of the time of
    the imports, and again half a second for each dataset, after which MMEngine calls it.
    """
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(), _uncollected():
        warnings.simplefilter("ignore")
        import mmdet.evaluation  # noqa: F401

        yield


@contextmanager
def _uncollected() -> Iterator[None]:
    if "mmdet.evaluation" in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()  # what is garbage already would be kept
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Predictor":
        return getattr(importlib.import_module(PUBLIC[name]), name)
    with quiet_imports():
        return getattr(importlib.import_module(PUBLIC[name]), name)
