"""Starting, continuing and evaluating runs."""

import errno
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mmengine.device.utils
import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import import_modules_from_strings
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, exclusive_lock, writing
from stage1_proposals.common.system import keep_freed_memory
from stage2_training.config.overrides import CONFIG_ERRORS, config_error, passes
from stage2_training.engine import read_weights
from stage2_training.engine.distributed import on_rank_zero
from stage2_training.evaluation.scores import LOGGED
from stage2_training.runs.initial_weights import Initialisation
from stage2_training.runs.provenance import record_command
from stage2_training.runs.runner import QuietRunner, TrainingRunner
from stage2_training.runs.transfer import Transfer, plan_transfer
from stage2_training.runs.work_dir import GO_ON, WorkDir

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def use_device(device: str | None) -> str:
    """Train on `cpu` or `cuda`; by default on the GPU when there is one.

    Raises:
        UserError: `cuda` without a GPU that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; use --device cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # MMEngine decides when it is imported and has no setting for it.
    mmengine.device.utils.DEVICE = device
    if device == "cpu":
        keep_freed_memory()
    return device


def build_model(config: Config, options: Sequence[str] = ()) -> BaseModel:
    """The config's model as its own initialisation leaves it, on CPU, by the config's seed.

    Raises:
        UserError: there is no such model, and `options`, the `--cfg-options` in the config, are to blame.
    """
    if not MMLogger.check_instance_created("initialisation"):  # MMEngine announces every parameter at INFO
        MMLogger.get_instance("initialisation", log_level="WARNING")
    with _blaming(options):
        import_modules_from_strings(**config.custom_imports)
        init_default_scope("mmdet")
        set_random_seed(config.randomness.seed)
        model = MODELS.build(config.model)
        model.init_weights()
    return model


def initial_model(config: Config, options: Sequence[str] = ()) -> dict[str, Tensor]:
    """The state dict of `build_model`."""
    return build_model(config, options).state_dict()


def write_initial_weights(work: WorkDir, initialisation: Initialisation, options: Sequence[str] = ()) -> Transfer:
    """Write `initial.pth`, the model at step 0: the given weights where they fit, its own initialisation elsewhere.

    Raises:
        UserError: the weights cannot be read, or do not fill what they must; the directory cannot be written.
    """
    target = initial_model(work.read_config(), options)
    transfer = plan_transfer(initialisation.read(target), target)
    transfer.require(initialisation.needed, initialisation.source, initialisation.hint)
    weights = io.BytesIO()  # torch hides what the disk says
    torch.save({"state_dict": {**target, **transfer.taken}}, weights)
    with writing(work.initial):
        transfer.write(work.transfer, initialisation.source)
        with atomic_write(work.initial) as scratch:
            scratch.write_bytes(weights.getbuffer())
    return transfer


def train(
    work: WorkDir,
    config: Config,
    start: Initialisation,
    purpose: str,
    judge: Callable[[], dict[str, Any]],
    command: Sequence[str],
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a run to its end in its work directory, from its latest checkpoint or its initial weights.

    Of several processes, the first writes there, and the others wait for it; they must see the same directory.

    Args:
        work: where everything goes; nothing is done when it holds this run, finished.
        config: the composed config.
        start: initial weights.
        purpose: what the run is for, for the screen.
        judge: called after training for what the run has to say of its outcome.
        command: what was typed, for the directory's `commands.jsonl`.
        options: the `--cfg-options` in the config, to be named when nothing can be built from it.

    Returns:
        `judge`'s result, with the path of the last `checkpoint`.

    Raises:
        UserError: the directory holds other work, is in use or cannot be written; an image, shard or checkpoint cannot
            be used; `options` do not fit.
    """
    config.initialisation = start.record
    with ExitStack() as held, plain_user_errors(work.path, GO_ON):

        def begin() -> dict[str, Any] | None:
            held.enter_context(exclusive_lock(work.path))
            with _blaming(options):
                work.claim(config)
                work.read_config()
            result = work.result()
            if result is None:
                if not work.initial.exists():
                    print(write_initial_weights(work, start, options).report(start.source))
                record_command(work.path, command, _devices())
            return result

        def end() -> dict[str, Any]:
            result = judge() | {"checkpoint": str(work.latest_checkpoint())}
            work.finish(result)
            return result

        result = on_rank_zero(begin)
        if result is not None:
            print(f"{work.path}: finished already")
            return result
        config = work.read_config()
        print(f"{purpose}: {config.train_cfg.max_epochs} epochs of {_batch(config)}; everything goes to {work.path}")
        _run(TrainingRunner, config, TrainingRunner.train, options)
        return on_rank_zero(end)


def _devices() -> str:
    """`cpu`, or the GPU's name, and how many processes have one each."""
    device = torch.cuda.get_device_name() if get_device() == "cuda" else get_device()
    processes = get_world_size()
    return f"{processes} x {device}" if processes > 1 else device


def _batch(config: Config) -> str:
    """`batch 96 (8 processes x 6 images x 2 passes)`, of which what is 1 is left out."""
    total, images, processes = config.train_cfg.total_batch, config.train_dataloader.batch_size, get_world_size()
    parts = [(processes, "processes"), (images, "images"), (passes(total, images, processes), "passes")]
    shared = " x ".join(f"{count} {what}" for count, what in parts if count > 1)
    return f"batch {total}" + (f" ({shared})" if " x " in shared else "")


def evaluate(
    config: Config, checkpoint: str | Path, work_dir: str | Path, options: Sequence[str] = ()
) -> dict[str, float]:
    """The scores of a checkpoint on the config's test set, as its metric names them (`score_detections`).

    Args:
        work_dir: where the log goes.
        options: the `--cfg-options` in the config, to be named when nothing can be built from it.

    Raises:
        UserError: the checkpoint does not fit the model, an image cannot be used, or `options` do not fit.
    """
    plan_transfer(read_weights(checkpoint), initial_model(config, options)).require_all(checkpoint)
    training = ("train_", "val_", "optim_wrapper", "param_scheduler", "auto_scale_lr")
    config = Config({key: value for key, value in config.items() if not key.startswith(training)})
    config.work_dir, config.load_from = str(work_dir), str(checkpoint)
    with plain_user_errors(Path(work_dir)):
        scores = _run(QuietRunner, config, QuietRunner.test, options)
    return {name.removeprefix(LOGGED): value for name, value in scores.items() if name.startswith(LOGGED)}


def _run(kind: type[QuietRunner], config: Config, task: Callable[[Any], Any], options: Sequence[str]) -> Any:
    """Make a runner and let it `train` or `test`; until it is built, blame `options` for what fails."""
    runner: QuietRunner | None = None
    if dist.is_initialized():
        config.launcher = "pytorch"
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": config.get("find_unused_parameters", False),
        }
        if get_device() == "cpu":
            config.model_wrapper_cfg.device_ids = None
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its successor is torch 2.13's
    with _blaming(options, lambda: runner is None or not runner.built):
        runner = kind.from_cfg(config)
        return task(runner)


@contextmanager
def _blaming(options: Sequence[str], still: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Blame `--cfg-options`, where any were given, for what cannot be built; later faults are not theirs."""
    try:
        yield
    except CONFIG_ERRORS as error:
        if not options or not still():
            raise
        raise config_error(options, error) from error


@contextmanager
def plain_user_errors(directory: Path, hint: str = "") -> Iterator[None]:
    """Give a user error from a data-loading process its own message back; torch wraps it in a traceback.

    A disk that is full or may not be used is the user's error as well.

    Args:
        directory: where everything goes.
        hint: what to do next when the disk fails, for the message's end.
    """
    try:
        yield
    except UserError as error:
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise UserError(str(error).rsplit(name, 1)[-1].strip()) from error
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(f"{error.filename or directory}: {error.strerror}{hint and f'; {hint}'}") from error
