"""What a fork server imports before it starts workers, so that each of them starts in milliseconds and shares it.

Importing this module is for a fork server alone: see :func:`vertebra.data.workers.process_context`.
"""

import gc
import os
import signal

from . import loader  # noqa: F401  # with all that a worker needs

_SERVER = os.getpid()


def _obey_sigterm_again() -> None:
    """Undo in a process that the server starts what is for the server alone."""
    if os.getppid() == _SERVER:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# A scheduler sends SIGTERM to every process of a job, and the training process wants its workers until a checkpoint is
# written. The server ends when the training process does, whatever ends that.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=_obey_sigterm_again)

# A search for garbage writes into every object it looks at, and each process would get these pages for itself.
gc.collect()
gc.freeze()
