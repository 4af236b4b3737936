"""Worker processes of the data loader: their start, the image that each is reading, and errors that name it."""

import contextlib
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize
from typing import Any, Literal

import cv2
import psutil
import torch
from torch.utils.data import get_worker_info

from ..structures import UsageError, WorkerError

StartMethod = Literal["fork", "spawn", "forkserver"]

_CHECK_SECONDS = 2.0
"""Interval in seconds at which a worker checks that the training process is alive."""
_progress_of_loaders: "weakref.WeakSet[WorkerProgress]" = weakref.WeakSet()
"""The progress of every loader in this process, to look up the image of a dead worker by its process id."""
_frozen_heaps = 0


def process_context(start_method: StartMethod | None) -> BaseContext:
    """Return the multiprocessing context for worker processes; None is the platform's default start method.

    Raises UsageError if the platform does not support the start method.
    """
    try:
        context = multiprocessing.get_context(start_method)
    except ValueError as error:
        known = ", ".join(multiprocessing.get_all_start_methods())
        raise UsageError(
            f"this system does not support the start method {start_method!r}",
            f"set run.loader.start_method to one of {known}",
        ) from error
    if context.get_start_method() != "fork":
        resource_tracker.ensure_running()  # started together with a worker, it would undo signals_blocked()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["__main__", "vertebra.data.worker_preload"])
    return context


class WorkerProgress:
    """The image that each worker of a loader is reading, in memory shared between the workers and their parent."""

    def __init__(self, workers: int, image_ids: Sequence[int | str]) -> None:
        self._image_ids = image_ids
        self._rows = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # process id, image index + 1 or 0
        _progress_of_loaders.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the image ids, which workers do not need."""
        return {"_image_ids": (), "_rows": self._rows}

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Record inside the block that this worker is reading an image; if it is killed there, the record remains."""
        worker = get_worker_info()
        if worker is None:
            yield
            return
        row = self._rows.numpy()[worker.id]
        before = row[1].item()
        row[:] = os.getpid(), index + 1
        try:
            yield
        finally:
            row[1] = before

    def images_of(self, processes: Collection[int] | None = None) -> list[int | str]:
        """Return the ids of the images that the workers with these process ids, or all workers, are reading."""
        rows = self._rows.tolist()
        return [
            self._image_ids[index_plus_one - 1]
            for process, index_plus_one in rows
            if index_plus_one and (processes is None or process in processes)
        ]


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """Hide all existing objects from garbage collection inside the block, also in workers that are forked in it.

    Garbage collection writes to the header of every object that it visits, which copies the shared memory pages into
    each process: a hundred megabytes if torch is imported.
    """
    global _frozen_heaps
    if not _frozen_heaps:
        gc.collect()
        gc.freeze()
    _frozen_heaps += 1
    try:
        yield
    finally:
        _frozen_heaps -= 1
        if not _frozen_heaps:
            gc.unfreeze()


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Convert torch's error about a dead worker into a :class:`WorkerError` that names the image it was reading.

    If the workers are children of this process, torch raises the error from a signal handler, at any point of the code.
    So all code that uses the batches must run inside this block.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        message = str(error).partition("\n")[0]
        dead = re.search(r"\(pid(?:\(s\))? ([\d, ]+)\)", message)
        processes = [] if dead is None else [int(number) for number in dead[1].split(",")]
        images = [image_id for progress in _progress_of_loaders for image_id in progress.images_of(processes)]
        raise worker_error(message, images) from error


def worker_error(message: str, images: Sequence[int | str]) -> WorkerError:
    """Return the error about workers that were reading ``images`` (image ids)."""
    image_ids = ", ".join(map(str, dict.fromkeys(images))) or None
    return WorkerError(message, "is the machine out of memory, or a disk not answering?", image_id=image_ids)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM while workers are started, which inherit this until :func:`init_worker` runs in them.

    A terminal or a scheduler sends Ctrl-C (SIGINT) and SIGTERM to every process of a run. The training process handles
    them, and needs batches until it has written its checkpoint.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(worker_id: int) -> None:
    """Set up a worker process: one OpenCV thread, and no reaction to signals meant for the training process."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        watcher = threading.Thread(target=_end_with_training, daemon=True)
        watcher.start()
        # A thread that wakes up while Python shuts down would abort the process. The watcher must outlast the wait for
        # the queue's own thread (priority -5), which blocks forever if the training process is gone.
        Finalize(None, _stop_watcher, args=(watcher,), exitpriority=-10)
    elif sys.platform != "win32":  # no other platform reports the sender of a signal, so torch must be able to end it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _stop_watcher(watcher: threading.Thread) -> None:
    """Stop the thread of :func:`_end_with_training` in a worker that ends normally."""
    assert watcher.ident is not None, "the thread was started"
    signal.pthread_kill(watcher.ident, signal.SIGTERM)
    watcher.join()


def _end_with_training() -> None:
    """End this worker when the training process has ended or sends SIGTERM; ignore SIGTERM from other processes.

    torch ends a worker whose parent has ended, unless the worker is still sending batches: the other workers keep its
    pipe open, and it waits forever. Also, the parent may be a fork server instead of the training process.
    """
    training = multiprocessing.parent_process()
    assert training is not None and training.pid is not None, "a worker has a parent"
    try:
        process = psutil.Process(training.pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            sent = signal.sigtimedwait({signal.SIGTERM}, _CHECK_SECONDS)
            if sent is not None and sent.si_pid == training.pid:
                break
            if sent is not None and sent.si_pid == os.getpid():
                return
    except psutil.NoSuchProcess:
        pass
    os._exit(0)
