"""Signals that ask a run to stop: it ends after the step that it is in, with a checkpoint."""

import contextlib
import signal
from collections.abc import Iterator

from ..structures import VertebraError


class Interrupted(VertebraError):
    """A signal asked the run to stop, and its checkpoint is written."""

    case = "interrupted"

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}", "continue with --resume")
        self.exit_code = 128 + number


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C put their number into; a second signal acts at once."""
    received: list[int] = []
    previous = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        for known, handler in previous.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
