"""The module that a fork server imports before it starts workers, which then start in milliseconds and share memory.

Only a fork server may import it: see :func:`vertebra.data.workers.process_context`.
"""

import gc
import os
import signal

from . import loader  # noqa: F401  # imports all modules that a worker needs

_SERVER = os.getpid()


def _restore_sigterm() -> None:
    """Restore the default SIGTERM handler in a process that the server has started."""
    if os.getppid() == _SERVER:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# A scheduler sends SIGTERM to every process of a job, but the training process needs its workers until it has written a
# checkpoint. The server ends with the training process in any case.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=_restore_sigterm)

# Garbage collection writes to every object that it visits, which would copy the shared pages into each process.
gc.collect()
gc.freeze()
