"""Sending a run's scalars and settings to Weights & Biases or MLflow, by MMEngine's backends, when asked to."""

from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.errors import UserError

# By the name of the package, which is not among ours. `WandbVisBackend` sends to the account that is logged in;
# `MLflowVisBackend` writes into the work directory.
BACKENDS: dict[str, dict[str, Any]] = {
    "wandb": {"type": "WandbVisBackend", "init_kwargs": {"project": "saliency-prompt"}},
    "mlflow": {"type": "MLflowVisBackend", "exp_name": "saliency-prompt"},
}


def track(config: Config, tracker: str) -> None:
    """Add a tracker to a run's config, in place.

    Raises:
        UserError: its package is not installed.
    """
    if find_spec(tracker) is None:
        raise UserError(
            f"--track {tracker}: the package {tracker} is not installed; `.venv/bin/uv pip install {tracker}` "
            f"installs it, or leave out --track"
        )
    config.visualizer.vis_backends = [*config.visualizer.vis_backends, dict(BACKENDS[tracker])]


def untrack(config: Config) -> None:
    """Remove the trackers of a run's config, in place: what is done with the run later was not asked to be sent."""
    trackers = {backend["type"] for backend in BACKENDS.values()}
    kept = [backend for backend in config.visualizer.vis_backends if backend["type"] not in trackers]
    config.visualizer.vis_backends = kept
