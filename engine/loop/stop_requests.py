"""Signals that ask a run to stop: it ends after the current step, with a checkpoint."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from ...structures import VertebraError

REPEAT_WINDOW = 3.0
"""Seconds in which a second signal is the same request: a scheduler or terminal that signals every process of a job
reaches a training twice, the second time through ``torchrun``."""


class Interrupted(VertebraError):
    """A signal asked the run to stop, and its checkpoint is written."""

    case = "interrupted"

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}", "continue with --resume")
        self.exit_code = 128 + number


class StopRequests:
    """The signals that came since :func:`stop_requests` was entered."""

    def __init__(self) -> None:
        self.number = 0
        """The first signal's number; 0 if none came."""
        self._saved_step: int | None = None

    @contextlib.contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """Let a signal raise :class:`Interrupted` at any moment of the block, whose work can be done again from the
        checkpoint of ``saved_step``."""
        self._saved_step = saved_step
        try:
            self._raise_if_asked()
            yield
        finally:
            self._saved_step = None

    def note(self, number: int) -> None:
        """Take in a signal. Another one of the same request does not break into the end that the first has begun."""
        if not self.number:
            self.number = number
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.number and self._saved_step is not None:
            raise Interrupted(self.number, self._saved_step)


@contextlib.contextmanager
def stop_requests(notify: Callable[[str], None] | None = None) -> Iterator[StopRequests]:
    """Take SIGTERM and Ctrl-C as requests to stop; a second signal, ``REPEAT_WINDOW`` or more later, acts at once.

    Only the main thread of a process gets signals. In another thread they stay as they are, and ``notify`` is told.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        if notify is not None:
            notify(
                "training in a thread: Ctrl-C and SIGTERM are the program's to handle, and end no run with a checkpoint"
            )
        yield requests
        return
    # What Python does by itself; not what was there before, since a shell lets what it starts in the background ignore
    # Ctrl-C.
    default_handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    first: float | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal first
        first = time.monotonic() if first is None else first
        if time.monotonic() - first < REPEAT_WINDOW:
            requests.note(number)
            return
        signal.signal(number, default_handlers[signal.Signals(number)])
        signal.raise_signal(number)

    previous = {number: signal.signal(number, handle) for number in default_handlers}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
