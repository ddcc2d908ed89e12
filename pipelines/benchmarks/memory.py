"""Peak memory of tensors, on a GPU or a CPU."""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

MEMORY_EVENT = "[memory]"


def peak_memory(function: Callable[[], object], device: str) -> int:
    """The most bytes that tensors made in `function` took at a time.

    On a GPU those that PyTorch's allocator counts; on a CPU, where it keeps no count, those that the profiler sees.
    Unlike the process's resident memory, neither depends on what is kept of the memory that was freed.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == MEMORY_EVENT]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), default=0)
