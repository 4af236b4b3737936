"""The processes that read and transform images: how they start, what each is reading, and what an error says."""

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
"""Seconds between looks at whether the training process is still there."""
_progress_of_loaders: "weakref.WeakSet[WorkerProgress]" = weakref.WeakSet()
"""The progress of every loader in this process: torch tells no more of a worker that died than its process id."""
_frozen_heaps = 0


def process_context(start_method: StartMethod | None) -> BaseContext:
    """Return what starts worker processes, by a start method or by the platform's default; raise UsageError if the
    platform does not have it."""
    try:
        context = multiprocessing.get_context(start_method)
    except ValueError as error:
        known = ", ".join(multiprocessing.get_all_start_methods())
        raise UsageError(
            f"this system cannot start processes by {start_method!r}", f"set run.loader.start_method to one of {known}"
        ) from error
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["__main__", "vertebra.data.worker_preload"])
    return context


class WorkerProgress:
    """The image that each worker of a loader is reading, in memory that the workers share with their parent."""

    def __init__(self, workers: int, image_ids: Sequence[int | str]) -> None:
        self._image_ids = image_ids
        self._rows = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # process, index + 1 or 0 for none
        _progress_of_loaders.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the image ids out of what is sent to a worker, which has no use for them."""
        return {"_image_ids": (), "_rows": self._rows}

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Record for the time of the block that this worker is reading an image; a worker that is killed stays
        recorded."""
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
        """Return the ids of the images that workers are reading: those of some processes, or of all."""
        rows = self._rows.tolist()
        return [
            self._image_ids[number - 1]
            for process, number in rows
            if number and (processes is None or process in processes)
        ]


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """Leave what this process has made so far out of searches for garbage, in it and in workers forked in the block.

    A search writes into the head of every object it looks at, so that each process that searches comes to have these
    pages for itself: a hundred megabytes where torch is imported.
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
    """Raise what torch says of a dead worker as a :class:`WorkerError` that names the image it was reading.

    Where workers are children of this process torch says it from a signal handler, wherever the process is just then:
    code that takes batches works inside this block.
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
    """Return the error about workers that were reading ``images``."""
    named = ", ".join(map(str, dict.fromkeys(images))) or None
    return WorkerError(message, "is the machine out of memory, or a disk not answering?", image_id=named)


def init_worker(worker_id: int) -> None:
    """Prepare a worker process: one thread, and deaf to signals that are meant for the training process.

    A terminal or a scheduler sends Ctrl-C and SIGTERM to every process of a run; the training process handles them, and
    wants batches until its checkpoint is written.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nobody says who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        watch = threading.Thread(target=_end_with_training, daemon=True)
        watch.start()
        Finalize(None, _end_watch, args=(watch,), exitpriority=0)  # a thread that wakes in Python's own end aborts it


def _end_watch(watch: threading.Thread) -> None:
    """End the thread of :func:`_end_with_training` in a worker that ends by itself."""
    assert watch.ident is not None, "the thread was started"
    signal.pthread_kill(watch.ident, signal.SIGTERM)
    watch.join()


def _end_with_training() -> None:
    """End this worker when the training process is gone or asks for it by SIGTERM; ignore SIGTERM from others.

    Torch ends a worker whose parent is gone, but not one that has batches to hand over: the other workers hold its pipe
    open, and it waits for ever. The parent may also be a fork server, which is not the training process.
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
