"""How much memory tensors take at the same time."""

import itertools
from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the most bytes of tensors on the CPU that a call holds at a time, beside what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    del result
    events = profile.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    return max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))
