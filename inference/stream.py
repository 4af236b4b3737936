"""Prediction of a stream of images: decoding ahead in threads, batches of one padded size, results in order."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from ..structures import DataError, VertebraError
from .preprocessing import Photo, load_photo

if TYPE_CHECKING:
    from .predictor import Predictor

Key = TypeVar("Key")

WAIT_FOR_BATCH = 0.05
"""Seconds for which a batch that is not full waits for the next image."""
WAIT_FOR_IMAGE = 0.2
"""Seconds without an image after which an empty batch is yielded, so that the caller can look for a request to stop."""


class StreamedPrediction(NamedTuple):
    """An image of a stream and its prediction."""

    name: str
    """The path as it was given; the index in the stream for an image that is not a path."""
    photo: Photo
    prediction: Any


@dataclass(slots=True, eq=False)
class StreamItem(Generic[Key]):
    """An image of a stream: its key, and either its photo and prediction or the error because of which it has none."""

    key: Key
    photo: Photo | None = None
    prediction: Any = None
    error: VertebraError | None = None


def default_workers() -> int:
    """Return the number of decoding threads: one for each core except that of the model, from one to eight."""
    return min(8, max(1, (os.cpu_count() or 2) - 1))


def stream_batches(
    predictor: "Predictor", images: Iterable[tuple[Key, Any]], batch_size: int, workers: int
) -> Generator[list[StreamItem[Key]], None, None]:
    """Predict (key, image) pairs, and yield lists of items in the order of the images.

    Images are decoded ahead in ``workers`` threads. A batch has images that are padded to the same size alone too,
    chosen from the next ``2 * batch_size``: nothing is padded for a neighbor, and a prediction does not depend on
    which images are predicted together. At most ``3 * batch_size + workers`` photos are in memory. An empty
    list is yielded whenever there was no image for a while.
    """
    window: deque[_Waiting[Key]] = deque()
    with (
        _Decoders(predictor, workers) as decoders,
        _Feeder(images, decoders.submit, batch_size + workers) as feeder,
    ):
        while True:
            ended = not feeder.fill(window, batch_size)
            batch = _choose_batch(window, batch_size, predictor.model.size_divisor)
            if batch:
                for waiting, prediction in zip(batch, _predict(predictor, batch), strict=True):
                    waiting.item = StreamItem(waiting.key, waiting.decoded[0], prediction)
            items = []
            while window and window[0].item is not None:
                items.append(window.popleft().item)
            yield items
            if ended and not window:
                return


def _predict(predictor: "Predictor", batch: "list[_Waiting[Any]]") -> list[Any]:
    """Return the predictions of decoded images: of one in tiles, or of several as a batch."""
    photos, prepared = zip(*(waiting.decoded for waiting in batch), strict=True)
    if prepared[0] is None:
        return [predictor.predict_in_tiles(photos[0])]
    return predictor.predict_prepared(prepared, [photo.shape[:2] for photo in photos])


class _Decoders:
    """Threads that decode and preprocess images; at the end of the block, images that wait are not decoded."""

    def __init__(self, predictor: "Predictor", workers: int) -> None:
        self._predictor, self._threads = predictor, ThreadPoolExecutor(workers, "decode")

    def __enter__(self) -> "_Decoders":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, image: Any) -> Future[tuple[Photo, Tensor | None]]:
        """Start decoding an image."""
        return self._threads.submit(self._decode, image)

    def _decode(self, image: Any) -> tuple[Photo, Tensor | None]:
        """Return an image as an RGB array, and preprocessed for the model, or None if it is predicted in tiles."""
        photo = load_photo(image)
        return photo, None if self._predictor.needs_tiles(photo) else self._predictor.prepare(photo)


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Key]):
    """An image of the window: being decoded, decoded, or predicted but behind one that is not."""

    key: Key
    decoding: Future[tuple[Photo, Tensor | None]]
    item: StreamItem[Key] | None = None

    @property
    def decoded(self) -> tuple[Photo, Tensor | None]:
        """The photo and the preprocessed image, or None for tiles, once they are decoded."""
        return self.decoding.result()


def _choose_batch(window: deque[_Waiting[Key]], batch_size: int, divisor: int) -> list[_Waiting[Key]]:
    """Return the first image without a prediction, and others of its padded size; set the errors of bad images.

    Both sides are padded to multiples of ``divisor``. An image that is predicted in tiles is a batch of its own.
    Decoding is waited for until the batch is full.
    """
    batch: list[_Waiting[Key]] = []
    size_of_batch = None
    for waiting in window:
        if waiting.item is not None or len(batch) == batch_size:
            continue
        try:
            prepared = waiting.decoded[1]
        except DataError as error:
            waiting.item = StreamItem(waiting.key, error=error)
            continue
        size = None if prepared is None else tuple(-(-side // divisor) for side in prepared.shape[1:])
        if not batch or (size is not None and size == size_of_batch):
            batch.append(waiting)
            size_of_batch = size
    return batch


class _Feeder(Generic[Key]):
    """A thread that takes images from an iterable, which may block, and has them decoded, a limited number ahead."""

    def __init__(self, images: Iterable[tuple[Key, Any]], decode: Callable[[Any], Future], ahead: int) -> None:
        self._images, self._decode = images, decode
        self._queue: queue.Queue[_Waiting[Key] | BaseException | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        # A daemon, since it may wait for a line of standard input that never comes.
        self._thread = threading.Thread(target=self._run, name="images", daemon=True)
        self._ended = False

    def __enter__(self) -> "_Feeder[Key]":
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(2 * WAIT_FOR_IMAGE)

    def fill(self, window: deque[_Waiting[Key]], batch_size: int) -> bool:
        """Move decoded images into the window, up to two batches; return False once there are no more."""
        while not self._ended and len(window) < 2 * batch_size:
            missing = batch_size - sum(waiting.item is None for waiting in window)
            wait = 0.0 if missing <= 0 else WAIT_FOR_IMAGE if missing == batch_size else WAIT_FOR_BATCH
            try:
                entry = self._queue.get(block=wait > 0, timeout=wait or None)
            except queue.Empty:
                break
            if isinstance(entry, BaseException):
                raise entry
            if entry is None:
                self._ended = True
            else:
                window.append(entry)
        return not self._ended

    def _run(self) -> None:
        images = iter(self._images)
        end: BaseException | None = None
        try:
            for key, image in images:
                if self._stop.is_set() or not self._put(_Waiting(key, self._decode(image))):
                    return
        except BaseException as error:
            end = error
        finally:
            if isinstance(images, Generator):
                images.close()  # which closes the video that it reads
        self._put(end)

    def _put(self, entry: _Waiting[Key] | BaseException | None) -> bool:
        """Put an entry into the queue; return False if the stream was closed meanwhile."""
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=WAIT_FOR_IMAGE)
                return True
            except queue.Full:
                continue
        return False
