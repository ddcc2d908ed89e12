"""Stage 2: pre-training, fine-tuning and evaluation with MMDetection."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import MMDetection without its messages about optional packages."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmdet.evaluation  # noqa: F401

        yield
