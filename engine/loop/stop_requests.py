"""Stopping by SIGTERM or Ctrl-C: a training ends after the current step, a prediction after the current batch."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from ...structures import VertebraError

REPEAT_WINDOW = 3.0
"""Seconds within which further signals count as the same request. A scheduler or terminal that signals every process of
a job reaches each rank twice: directly and through ``torchrun``."""


class Interrupted(VertebraError):
    """Raised after a signal asked the command to stop, once what is done is written; ``done`` says how much that is."""

    case = "interrupted"

    def __init__(self, number: int, done: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after {done}", "continue with --resume")
        self.exit_code = 128 + number


class StopRequests:
    """The first signal received inside a :func:`stop_requests` block."""

    def __init__(self) -> None:
        self.number = 0
        """The number of the first signal; 0 if none was received."""
        self._saved_step: int | None = None

    @contextlib.contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """Raise :class:`Interrupted` as soon as a signal is received inside the block, or was received before it.

        Use it for work that a resumed run can repeat from the checkpoint of ``saved_step``.
        """
        self._saved_step = saved_step
        try:
            self._raise_if_asked()
            yield
        finally:
            self._saved_step = None

    def receive(self, number: int) -> None:
        """Record a signal; only the first can raise, so that a repeated signal does not interrupt the shutdown."""
        if not self.number:
            self.number = number
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.number and self._saved_step is not None:
            raise Interrupted(self.number, f"step {self._saved_step}")


@contextlib.contextmanager
def stop_requests(
    notify: Callable[[str], None] | None = None, repeat_window: float = REPEAT_WINDOW
) -> Iterator[StopRequests]:
    """Take SIGTERM and Ctrl-C inside the block as requests to stop after the current step.

    A second signal ``repeat_window`` seconds or more after the first ends the process at once; with a window of 0 the
    system does that, even while the process is inside a long operation. Python delivers signals to the main thread
    only: in any other thread no handler is installed, and ``notify`` gets a warning.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        if notify is not None:
            notify(
                "training in a thread: Ctrl-C and SIGTERM are not handled here, and stop the run without a checkpoint"
            )
        yield requests
        return
    # Python's defaults, not the handlers installed before: a shell makes background processes ignore Ctrl-C.
    default_handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    first: float | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal first
        is_first = first is None
        first = time.monotonic() if first is None else first
        if is_first and not repeat_window:
            for signal_number in default_handlers:
                signal.signal(signal_number, signal.SIG_DFL)
        if is_first or time.monotonic() - first < repeat_window:
            requests.receive(number)
            return
        signal.signal(number, default_handlers[signal.Signals(number)])
        signal.raise_signal(number)

    previous = {number: signal.signal(number, handle) for number in default_handlers}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
