"""The images of an optimizer step, shared among processes and, where memory is short, among several passes.

images per process and pass x processes x passes = total batch. A schedule states the total, because the learning rate
belongs to it; how it is shared changes what a step costs, not what it learns.
"""

from stage1_proposals.errors import UserError


def passes(total: int, per_process: int, processes: int) -> int:
    """How many passes a process makes before an optimizer step.

    Raises:
        UserError: the total is not so many full passes; the message names what would fit.
    """
    _check_processes(total, processes)
    share = total // processes
    if share % per_process:
        raise UserError(
            f"--batch-size {per_process} does not divide the {share} images that each of {processes} processes takes "
            f"of the total batch of {total}; use one of {_listed(_divisors(share))}, or another --total-batch"
        )
    return share // per_process


def images_per_process(total: int, processes: int, most: int) -> int:
    """The most images, up to `most`, that a process can take at a time.

    Raises:
        UserError: the processes cannot share the total evenly; the message names what would fit.
    """
    _check_processes(total, processes)
    return max(each for each in _divisors(total // processes) if each <= most)


def _check_processes(total: int, processes: int) -> None:
    if total % processes:
        near = sorted({max(processes, total // processes * processes), -(-total // processes) * processes})
        raise UserError(
            f"{processes} processes cannot share the total batch of {total} evenly; "
            f"use {_listed(_divisors(total))} processes, or --total-batch {' or '.join(map(str, near))}"
        )


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
