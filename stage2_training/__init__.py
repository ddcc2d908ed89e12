"""Stage 2: pre-training, fine-tuning and evaluation with MMDetection."""

import gc
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


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
    if "mmdet.evaluation" in sys.modules or not gc.isenabled():  # this process may hold garbage, which would be kept
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
