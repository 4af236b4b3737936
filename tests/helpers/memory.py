"""Measuring the memory of tensors."""

import itertools
from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the peak of bytes that tensors take on the CPU during a call, beyond what they took before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    del result
    events = profile.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    return max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))
