"""Tasks on real Ray actors: order, errors, deaths. Builders are defined inside the tests, so that they travel."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.errors import UserError
from stage1_proposals.ray_pool import MakeBuilder, run_on_ray

pytestmark = pytest.mark.usefixtures("ray_cluster")


def ignore(_: int) -> None:
    pass


def builder(build: Callable[[int], dict[str, Any]], write: Callable[[int], None] = ignore) -> MakeBuilder:
    """A builder that reports ten photos per shard."""

    class Builder:
        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            result = build(task)
            progress(4)
            progress(6)

            def finish() -> dict[str, Any]:
                write(task)
                return result

            return finish

    return Builder


def test_results_come_in_the_shards_order() -> None:
    def build(index: int) -> dict[str, Any]:
        import time

        time.sleep(0.05 * (5 - index))
        return {"index": index, "pid": os.getpid()}

    rows = run_on_ray(builder(build), range(5), 2, False, ignore)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert len({row["pid"] for row in rows} - {os.getpid()}) == 2


def test_more_actors_than_cores_do_not_wait_for_ever() -> None:
    rows = run_on_ray(builder(lambda index: {"index": index}), range(6), 5, False, ignore)
    assert [row["index"] for row in rows] == list(range(6))


def test_no_gpu_for_a_gpu_job_is_refused() -> None:
    with pytest.raises(UserError, match="no GPU"):
        run_on_ray(builder(lambda index: {}), range(1), 1, True, ignore)


def test_progress_is_reported_once_for_each_photo() -> None:
    reported: list[int] = []
    run_on_ray(builder(lambda index: {}), range(4), 2, False, reported.append)
    assert sum(reported) == 40


def test_a_user_error_arrives_as_itself() -> None:
    def build(index: int) -> dict[str, Any]:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match=r"^the disk is full$"):
        run_on_ray(builder(build), range(2), 2, False, ignore)


def test_a_fault_of_ours_arrives_with_its_traceback() -> None:
    def build(index: int) -> dict[str, Any]:
        raise ZeroDivisionError("in build")

    with pytest.raises(ZeroDivisionError, match="in build"):
        run_on_ray(builder(build), range(1), 1, False, ignore)


def test_a_worker_that_dies_is_replaced_and_its_shard_built_again(tmp_path: Path) -> None:
    def build(index: int) -> dict[str, Any]:
        died = tmp_path / f"died-{index}"
        if index == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), 9)
        return {"index": index}

    rows = run_on_ray(builder(build), range(3), 2, False, ignore)
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert (tmp_path / "died-1").exists()
