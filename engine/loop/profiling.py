"""Where the time of a few steps goes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

FIRST, LAST = 10, 14
"""The steps that are traced, counted from 1 where a run begins or goes on; those before them are no measure."""


@contextlib.contextmanager
def profiled(path: Path | None, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Call what this gives after every step; ``path`` becomes a trace in Chrome's format, and ``say`` tells of it.

    Without a path it does nothing.
    """
    if path is None:
        yield lambda: None
        return
    path.unlink(missing_ok=True)

    def write(profiler: profile) -> None:
        profiler.export_chrome_trace(str(path))
        say(f"a trace of steps {FIRST} to {LAST} is in {path}: open it in https://ui.perfetto.dev")

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    phases = schedule(wait=FIRST - 2, warmup=1, active=LAST - FIRST + 1, repeat=1)
    with profile(activities=activities, schedule=phases, on_trace_ready=write) as profiler:
        yield profiler.step
    if not path.exists():
        say(f"no trace was written: the run ended before its step {FIRST}")
