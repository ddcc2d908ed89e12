"""Training and evaluating runs: from a config and initial weights to a finished work directory, and to scores."""

import errno
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

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

from stage1_proposals.common.checkpoints import TensorMatch, match_tensors, read_tensors
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, exclusive_lock, writing
from stage2_training.config.few_images import describe_length
from stage2_training.config.objects import describe_objects
from stage2_training.config.overrides import CONFIG_ERRORS, config_error
from stage2_training.config.pieces import describe_pieces
from stage2_training.config.tracking import untrack
from stage2_training.engine.checkpoints import use_safe_checkpoint_loader
from stage2_training.engine.distributed import on_rank_zero
from stage2_training.engine.steps import passes
from stage2_training.evaluation.scores import LOGGED
from stage2_training.runs.initial_weights import Initialisation, transfer_report, write_transfer
from stage2_training.runs.provenance import CommandRecord
from stage2_training.runs.runner import BuildProgress, QuietRunner
from stage2_training.runs.work_dir import RESUME_HINT, Result, WorkDir

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def train(
    work: WorkDir,
    config: Config,
    start: Initialisation,
    purpose: str,
    final_metrics: Callable[[], dict[str, Any]],
    command: Sequence[str],
    options: Sequence[str] = (),
) -> Result:
    """Train a run to its end in its work directory, from its latest checkpoint or its initial weights.

    Of several processes, the first writes there while the others wait; all must see the same directory.

    Args:
        work: where everything goes; nothing is done if it holds this run, finished.
        config: the composed config.
        start: initial weights.
        purpose: what the run is for, for the screen.
        final_metrics: called after training for the run's outcome, as in `Result`.
        command: what was typed, for the directory's `commands.jsonl`.
        options: the `--cfg-options` in the config, to be named when nothing can be built from it.

    Raises:
        UserError: the directory holds another run, is in use or cannot be written; an image, shard or checkpoint cannot
            be used; `options` do not fit.
    """
    config.initialisation = start.record.as_dict()
    with ExitStack() as lock, plain_user_errors(work.path, RESUME_HINT):

        def prepare() -> Result | None:
            """Create or verify the directory and make it ready for training; returns the result if there is one."""
            lock.enter_context(exclusive_lock(work.path))
            with report_config_errors(options):
                work.create_or_verify(config)
                work.read_config()
            result = work.result()
            if result is None:
                if not work.initial.exists():
                    print(transfer_report(write_initial_weights(work, start, options), start.source))
                CommandRecord.now(command, _devices()).append_to(work.path)
            return result

        def finish() -> Result:
            result = Result(str(work.latest_checkpoint()), final_metrics())
            work.finish(result)
            return result

        result = on_rank_zero(prepare)
        if result is not None:
            print(f"{work.path}: finished already")
            return result
        config = work.read_config()
        said = (describe_objects(config), describe_length(config), describe_pieces(config))
        print(*filter(None, said), sep="\n")
        print(f"{purpose}: {config.train_cfg.max_epochs} epochs of {_batch(config)}; everything goes to {work.path}")
        checkpoint = work.latest_checkpoint()
        config.resume = checkpoint is not None
        if checkpoint is not None:
            print(f"Resuming from {checkpoint}", flush=True)
            config.load_from = str(checkpoint)
        _run(config, QuietRunner.train, options)
        return on_rank_zero(finish)


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
    match_tensors(read_tensors(checkpoint), initial_model(config, options)).require_all(checkpoint)
    training = ("train_", "val_", "optim_wrapper", "param_scheduler", "auto_scale_lr")
    config = Config({key: value for key, value in config.items() if not key.startswith(training)})
    config.work_dir, config.load_from = str(work_dir), str(checkpoint)
    untrack(config)
    with plain_user_errors(Path(work_dir)):
        scores = _run(config, QuietRunner.test, options)
    return {name.removeprefix(LOGGED): value for name, value in scores.items() if name.startswith(LOGGED)}


def build_model(config: Config, options: Sequence[str] = ()) -> BaseModel:
    """The config's model as its own initialisation leaves it, on CPU, by the config's seed.

    Raises:
        UserError: the model cannot be built, and `options`, the `--cfg-options` in the config, are to blame.
    """
    if not MMLogger.check_instance_created("initialisation"):  # MMEngine announces every parameter at INFO
        MMLogger.get_instance("initialisation", log_level="WARNING")
    use_safe_checkpoint_loader()
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # of Deformable DETR
    with report_config_errors(options):
        import_modules_from_strings(**config.custom_imports)
        init_default_scope("mmdet")
        set_random_seed(config.randomness.seed)
        model = MODELS.build(deepcopy(config.model))  # Deformable DETR changes what it is built from
        model.init_weights()
    return model


def initial_model(config: Config, options: Sequence[str] = ()) -> dict[str, Tensor]:
    """The state dict of `build_model`."""
    return build_model(config, options).state_dict()


def write_initial_weights(work: WorkDir, start: Initialisation, options: Sequence[str] = ()) -> TensorMatch:
    """Write `initial.pth`, the model at step 0: the given weights where they fit, its own initialisation elsewhere.

    Raises:
        UserError: the weights cannot be read, or do not fill what they must; the directory cannot be written.
    """
    target = initial_model(work.read_config(), options)
    match = start.match(target)
    weights = io.BytesIO()  # written to disk below: `torch.save` hides the system's error
    torch.save({"state_dict": {**target, **match.found}}, weights)
    with writing(work.initial):
        write_transfer(match, work.transfer, start.source)
        with atomic_write(work.initial) as scratch:
            scratch.write_bytes(weights.getbuffer())
    return match


def _devices() -> str:
    """`cpu`, or the GPU's name; with several processes also their number."""
    device = torch.cuda.get_device_name() if get_device() == "cuda" else get_device()
    processes = get_world_size()
    return f"{processes} x {device}" if processes > 1 else device


def _batch(config: Config) -> str:
    """`batch 96 (8 processes x 6 images x 2 passes)`, without the factors that are 1."""
    total, images, processes = config.train_cfg.total_batch, config.train_dataloader.batch_size, get_world_size()
    parts = [(processes, "processes"), (images, "images"), (passes(total, images, processes), "passes")]
    shared = " x ".join(f"{count} {what}" for count, what in parts if count > 1)
    return f"batch {total}" + (f" ({shared})" if " x " in shared else "")


def _run(config: Config, task: Callable[[QuietRunner], Any], options: Sequence[str]) -> Any:
    """Build a runner and let it `train` or `test`; until all is built, blame `options` for what fails."""
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
    progress = BuildProgress()
    # MMEngine writes the config into five places, and formats each copy first: `config.py` is formatted already.
    config = Config(config.to_dict(), config.text, config.filename, format_python_code=False)
    with report_config_errors(options, unless=lambda: progress.finished):
        runner = QuietRunner.from_cfg(config)
        runner.register_hook(progress, priority="LOWEST")
        return task(runner)


@contextmanager
def report_config_errors(options: Sequence[str], unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Blame `--cfg-options`, where any were given, for what cannot be built."""
    try:
        yield
    except CONFIG_ERRORS as error:
        if not options or unless():
            raise
        raise config_error(options, error) from error


@contextmanager
def plain_user_errors(directory: Path, hint: str = "") -> Iterator[None]:
    """Give a user error from a data-loading process its own message back, which torch puts into a traceback.

    A disk that is full or must not be written is the user's error as well, and so is too little memory.

    Args:
        directory: where everything goes.
        hint: what to do next when the disk fails, for the message's end.
    """
    try:
        yield
    except UserError as error:
        # Text is all that torch (2.14, `torch._utils.ExceptionWrapper`) hands over from a worker process.
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise UserError(str(error).rsplit(name, 1)[-1].strip()) from error
    except RuntimeError as error:  # on a CPU, PyTorch has no class of its own for it
        if not isinstance(error, torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        raise UserError(
            f"{directory}: not enough memory ({str(error).splitlines()[0][:100]}); lower --batch-size, which keeps "
            f"the total batch, or --image-size{hint and f'; {hint}'}"
        ) from error
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(f"{error.filename or directory}: {error.strerror}{hint and f'; {hint}'}") from error
