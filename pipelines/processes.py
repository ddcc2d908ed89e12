"""A command in several processes, one per GPU: it starts itself again under torchrun, which keeps them together."""

import logging
import os
import signal
import sys
import tempfile
import uuid
from argparse import Namespace
from collections.abc import Callable
from functools import wraps

from stage1_proposals.common.errors import UserError

Main = Callable[[Namespace], None]


def one_per_gpu(module: str) -> Callable[[Main], Main]:
    """Decorate a command's `main` so that it runs in `args.gpus` processes of `module`.

    In a process that torchrun started, by this or by hand, `main` runs as one of them, and `args.gpus` means nothing.

    Raises:
        UserError: fewer GPUs than `args.gpus`, or a process was killed.
        SystemExit: the processes' exit code, when it is not 0; their messages stand above.
        KeyboardInterrupt: after Ctrl-C, when all processes have gone.
    """

    def decorate(main: Main) -> Main:
        @wraps(main)
        def run(args: Namespace) -> None:
            if "TORCHELASTIC_RUN_ID" in os.environ:  # others set LOCAL_RANK, too
                _join(main, args)
            elif args.gpus == 1:
                main(args)
            else:
                _start(module, args)

        return run

    return decorate


def _join(main: Main, args: Namespace) -> None:
    # On Ctrl-C the process that started this one has the word; a wait for another process would not hear Python.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stage1_proposals.common.system import die_with_parent, hide_gpus

    if args.device == "cpu":
        hide_gpus()  # before MMEngine is imported
    from stage2_training.engine.distributed import joined

    os.environ.setdefault("MKL_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # MMEngine warns without
    die_with_parent()
    with joined(args.device):
        main(args)


def _start(module: str, args: Namespace) -> None:
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if args.device != "cpu" and torch.cuda.device_count() < args.gpus:
        raise UserError(
            f"--gpus {args.gpus}: torch finds {torch.cuda.device_count()} GPUs here; use fewer, or --device cpu"
        )
    # One thread each is torchrun's rule; idle cores are better used.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.gpus)))
    logging.disable()  # torchrun announces what is said here in one line
    try:
        with tempfile.TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=args.gpus,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                run_id=uuid.uuid4().hex,
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
            )
            elastic_launch(config, sys.executable)("-m", module, *sys.argv[1:])
    except ChildFailedError as error:
        _report({rank: failure.exitcode for rank, failure in error.failures.items()}, args.gpus)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise SystemExit(128 + error.sigval) from error
    finally:
        logging.disable(logging.NOTSET)


def _report(codes: dict[int, int], processes: int) -> None:
    """Leave as the processes that failed did: `codes`, by rank, as in `Popen.returncode`."""
    spoken = [code for code in codes.values() if code > 0]
    if spoken:
        raise SystemExit(2 if 2 in spoken else spoken[0])
    rank, code = next(iter(codes.items()))
    raise UserError(
        f"process {rank + 1} of {processes} was killed ({signal.Signals(-code).name}), which ended all; "
        f"finished checkpoints are kept, run again to go on"
    )
