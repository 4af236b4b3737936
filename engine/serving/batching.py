"""Batches of requests: while a batch is predicted, the images that arrive wait and form the next one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class QueueFullError(Exception):
    """More images wait than the queue may hold."""


class BatchQueue:
    """A queue of images that are predicted in batches, in a thread, in the order of their arrival.

    ``predict`` maps a list of at most ``batch_size`` images to their predictions. ``limit`` is the number of images
    that may wait. Nothing waits for a batch to fill: a lone image is predicted at once.
    """

    def __init__(self, predict: Callable[[list[Any]], Sequence[Any]], batch_size: int, limit: int) -> None:
        self._predict, self._batch_size, self._limit = predict, batch_size, limit
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return self._waiting.qsize()

    async def predict(self, image: Any) -> Any:
        """Return the prediction of an image. Raises QueueFullError, or the exception that the prediction raised."""
        if len(self) >= self._limit:
            raise QueueFullError
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, result))
        return await result

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Predict what is in the queue as long as the block runs."""
        with ThreadPoolExecutor(1, "predict") as thread:
            worker = asyncio.create_task(self._work(thread))
            try:
                yield
            finally:
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        """Predict batch after batch, until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [(image, result) for image, result in batch if not result.done()]  # clients that have left
            if not batch:
                continue
            try:
                predictions = await loop.run_in_executor(thread, self._predict, [image for image, _ in batch])
            except Exception as error:  # the requests report it, whatever it is
                for _, result in batch:
                    if not result.done():
                        result.set_exception(error)
            else:
                for (_, result), prediction in zip(batch, predictions, strict=True):
                    if not result.done():
                        result.set_result(prediction)
