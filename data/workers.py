"""The processes that read and transform: how they begin, what they are at, and what is said where one fails."""

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

import cv2
import torch
from torch.utils.data import get_worker_info

from ..structures import WorkerError

_LOOK_EVERY = 2.0  # seconds
_notes: "weakref.WeakSet[WorkerProgress]" = weakref.WeakSet()
"""Those of every loader of this process: of a worker that died torch says no more than its number."""
_heaps_shared = 0


class WorkerProgress:
    """What each worker of a loader is reading, in memory that it shares with its parent."""

    def __init__(self, workers: int, image_ids: Sequence[int | str]) -> None:
        self._image_ids = image_ids
        self._rows = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # process, index + 1 or 0 for none
        _notes.add(self)

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """For the time in which a worker is at a sample; a worker that is killed never takes its note back."""
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
        """The images that workers are at: those of some processes, or all."""
        rows = self._rows.tolist()
        return [
            self._image_ids[number - 1]
            for process, number in rows
            if number and (processes is None or process in processes)
        ]


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """Inside, what this process has made so far is left out of searches for garbage, in it and in workers forked here.

    A search writes into the head of every object it looks at, so that each process that searches comes to have these
    pages for itself: a hundred megabytes where torch is imported.
    """
    global _heaps_shared
    if not _heaps_shared:
        gc.collect()
        gc.freeze()
    _heaps_shared += 1
    try:
        yield
    finally:
        _heaps_shared -= 1
        if not _heaps_shared:
            gc.unfreeze()


@contextlib.contextmanager
def worker_errors(notes: WorkerProgress | None = None) -> Iterator[None]:
    """What torch says of a dead or hanging worker, as a :class:`WorkerError` that names the image it was at.

    Torch says that one died by a signal handler, so wherever its parent stands: whoever takes batches works inside
    this. That one hangs it says where a batch is waited for, which has ``notes``.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        what = str(error).partition("\n")[0]
        dead = re.search(r"\(pid(?:\(s\))? ([\d, ]+)\)", what)
        if dead is not None:
            processes = [int(number) for number in dead[1].split(",")]
            images = [image_id for each in _notes for image_id in each.images_of(processes)]
        else:
            images = [] if notes is None else notes.images_of()
        named = ", ".join(map(str, dict.fromkeys(images))) or None
        raise WorkerError(what, "is the machine out of memory, or a disk not answering?", image_id=named) from error


def init_worker(number: int) -> None:
    """One worker is one thread.

    Ctrl-C and SIGTERM, which a terminal or a scheduler sends to every process of a run, are the training process's to
    handle: it wants batches until its checkpoint is written.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nobody says who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(starter: int) -> None:
    """Obey the SIGTERM by which the parent ends a worker that hangs, and no other; and outlive no parent.

    Torch ends a worker whose parent is gone, but not one that has batches to hand over: the other workers hold its pipe
    open, and it waits for ever. So this looks whether the process that started the worker is still the one above it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    while os.getppid() == starter:
        sent = signal.sigtimedwait({signal.SIGTERM}, _LOOK_EVERY)
        if sent is not None and sent.si_pid == parent.pid:
            break
    os._exit(0)
