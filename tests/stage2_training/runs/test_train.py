import re

import pytest
import torch

from stage1_proposals.common.errors import UserError
from stage2_training.runs.train import plain_user_errors


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_too_little_memory_is_one_line_that_says_what_to_lower(tmp_path, where):
    def allocate() -> None:
        if where == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has ...")
        torch.empty(2**50)

    place = re.escape(str(tmp_path))
    message = f"{place}: not enough memory \\(.*(allocate).*\\); lower --batch-size, which keeps the .*; run"
    with pytest.raises(UserError, match=message) as caught, plain_user_errors(tmp_path, "run again"):
        allocate()
    assert "\n" not in str(caught.value)


def test_another_error_at_run_time_stays_itself(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), plain_user_errors(tmp_path):
        torch.ones(2).reshape(3)
