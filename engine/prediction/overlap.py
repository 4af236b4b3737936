"""Overlapping the work on predictions, such as drawing, with the forward passes."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ...inference import StreamItem
from ..loop.stop_requests import StopRequests

Key = TypeVar("Key")
Result = TypeVar("Result")


def work_in_threads(
    batches: Generator[list[StreamItem[Key]], None, None],
    job: Callable[[StreamItem[Key]], Callable[[], Result]],
    workers: int,
    stop: StopRequests,
) -> Generator[tuple[StreamItem[Key], Future[Result]], None, None]:
    """Yield each item of the batches with the finished work on it, in order, until a stop is requested.

    ``job`` is called for one item after another and returns the work, which one of ``workers`` threads does while the
    next batch is predicted. After a request to stop, what is predicted is still worked on and yielded. Close the
    generator, so that an error between its items ends the threads.
    """
    waiting: deque[tuple[StreamItem[Key], Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, "write") as threads, contextlib.closing(batches):
        for items in batches:
            waiting.extend((item, threads.submit(job(item))) for item in items)
            while waiting and (len(waiting) > 2 * workers + len(items) or waiting[0][1].done()):
                waiting[0][1].exception()  # wait for it
                yield waiting.popleft()
            if stop.number:
                break
        yield from waiting
