"""Signals that ask a run to stop: it ends after the step that it is in, with a checkpoint."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...structures import VertebraError

REPEAT_WINDOW = 3.0
"""Seconds in which a second signal is the same request: a scheduler or terminal that signals every process of a job
reaches a training twice, the second time through ``torchrun``."""


_AT_ONCE: Mapping[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What Python does by itself; not what was there before, since a shell lets what it starts in the background ignore
Ctrl-C."""


class Interrupted(VertebraError):
    """A signal asked the run to stop, and its checkpoint is written."""

    case = "interrupted"

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}", "continue with --resume")
        self.exit_code = 128 + number


class StopRequests:
    """What SIGTERM and Ctrl-C asked for since :func:`stop_requests` was entered."""

    def __init__(self) -> None:
        self.number = 0
        """The signal's; 0 where none came."""
        self._saved_step: int | None = None

    @contextlib.contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """Inside, a signal raises :class:`Interrupted` at any moment: what is done can be done again from the
        checkpoint of this step."""
        self._saved_step = saved_step
        try:
            self._raise_if_asked()
            yield
        finally:
            self._saved_step = None

    def note(self, number: int) -> None:
        """Take in a signal; one more of the same request must not break into the end that the first has begun."""
        if not self.number:
            self.number = number
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.number and self._saved_step is not None:
            raise Interrupted(self.number, self._saved_step)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """SIGTERM and Ctrl-C as requests; a second signal, ``REPEAT_WINDOW`` or more after the first, acts at once."""
    requests = StopRequests()
    previous = {}
    first = None

    def note(number: int, frame: object) -> None:
        nonlocal first
        first = time.monotonic() if first is None else first
        if time.monotonic() - first < REPEAT_WINDOW:
            requests.note(number)
            return
        signal.signal(number, _AT_ONCE[number])
        signal.raise_signal(number)

    for number in _AT_ONCE:
        previous[number] = signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
