"""Measuring in a process of its own: no side of a benchmark inherits another's threads or memory."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from stage1_proposals.common.errors import UserError


def in_process(function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Call a function in a fresh process and give its result; what it raises is raised here."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(sender, function, args))
    with patch.dict(os.environ, environment or {}):
        process.start()
    sender.close()
    return receive(receiver, process)


def send(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In the process: send the function's result, or what it raised."""
    try:
        sender.send(function(*args))
    except Exception as error:
        sender.send(error)
        if not isinstance(error, UserError):
            raise


def receive(receiver: Any, process: Any) -> Any:
    """What `send` has sent."""
    result = receiver.recv()
    process.join()
    if isinstance(result, Exception):
        raise result
    return result
