"""Prediction of files: the images of all sources, batch by batch, with a picture and a results line for each."""

import contextlib
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...formats import encode_json_line, read_ground_truth, sort_results
from ...inference import (
    Predictor,
    SourceFile,
    Sources,
    StreamItem,
    Video,
    read_input_paths,
    render_text,
    stream_batches,
    write_image,
)
from ...models import Model
from ...structures import Classes, DataError, UsageError
from ..logging.progress import ProgressDisplay
from ..loop.stop_requests import Interrupted, StopRequests, stop_requests
from ..tasks import Task, pick_task, write_image_files
from .class_names import add_class_names
from .crops import CropWriter
from .ids import ImageIds, find_category_ids
from .options import PredictionOptions
from .output_folder import OutputName, PredictionFolder
from .overlap import work_in_threads
from .videos import VideoPrediction


@dataclass(slots=True)
class PredictionSummary:
    """The numbers of predicted and skipped files, the failures, and the results files of a prediction."""

    predicted: int = 0
    skipped: int = 0
    """Number of files that were predicted before."""
    failures: dict[str, str] = field(default_factory=dict)
    """The reason for each file that could not be predicted, by its path."""
    results: Sequence[str] = ()
    """The names of the results files."""


def predict_files(
    predictor: Predictor,
    sources: Sources,
    output: Path,
    options: PredictionOptions = PredictionOptions(),
    display: ProgressDisplay | None = None,
) -> PredictionSummary:
    """Predict image files, draw them, and write results as they come; return what was done.

    Writes to ``output`` a picture of each image (see :meth:`PredictionFolder.reserve`), ``results.jsonl`` with a line
    for each image as soon as it is predicted, ``failed.jsonl`` with the files that could not be used, and, at the end,
    the results files of the task and ``images.json`` with the id of each image. Image ids count from 1 or are those of
    ``options.annotations``. SIGTERM and Ctrl-C end the prediction after the current batch, with all files, by
    Interrupted; a second signal ends the process at once. Whatever ended a prediction, ``options.resume`` continues it.
    """
    display = display or ProgressDisplay(Console(quiet=True))
    render_text("a", 12, options.drawing.font)  # raises UsageError for a file that is no font
    ids, classes = _find_ids(predictor, sources, options)
    task = pick_task(predictor.model.head, classes, drawing=options.drawing)
    crops = CropWriter(output / "crops", task) if options.crops else None
    summary = PredictionSummary()
    with (
        PredictionFolder(output, _settings(predictor, options), options.resume) as folder,
        stop_requests(repeat_window=0.0) as stop,
    ):
        for file in (*sources.images, *sources.videos):
            folder.require_outside(file)
        work = _Prediction(predictor, task, ids, crops, folder, options, display, summary)
        try:
            if sources.images or sources.reads_input:
                work.predict_images(sources, stop)
            work.predict_videos(sources, stop)
            stopped = stop.number
        finally:
            summary.results = folder.write_results(task)
    if stopped:
        raise Interrupted(stopped, f"{summary.predicted} images")
    return summary


def _find_ids(
    predictor: Predictor, sources: Sources, options: PredictionOptions
) -> tuple[ImageIds | None, Mapping[str, Classes]]:
    """Return the image ids of the annotation file, if one is given, and the classes with its category ids.

    Raises UsageError if an image or a class is missing in that file.
    """
    classes = predictor.trained.classes
    if options.annotations is None:
        return None, classes
    truth = read_ground_truth(options.annotations)
    ids = ImageIds(truth, options.annotations)
    ids.require_different([file.name for file in sources.images])
    return ids, {task: find_category_ids(known, truth, options.annotations) for task, known in classes.items()}


def _settings(predictor: Predictor, options: PredictionOptions) -> dict[str, Any]:
    """Return what must be the same when a prediction is resumed, for ``prediction.json``."""
    values = options.model_dump(mode="json", include={"score", "annotations", "pictures", "drawing", "crops"})
    names = {task: classes.names for task, classes in predictor.trained.classes.items()}
    tiles = None if predictor.tiles is None else predictor.tiles.model_dump(mode="json")
    return {"weights": _digest(predictor), **values, "tiles": tiles, "class_names": names}


def _digest(predictor: Predictor) -> str:
    """Return a digest of the weights of a model, or of an exported file."""
    model, digest = predictor.model, hashlib.blake2b(digest_size=16)
    if not isinstance(model, Model):
        digest.update(Path(predictor.trained.source).read_bytes())
        return digest.hexdigest()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of the stream: its file, and its names in the output."""

    file: SourceFile
    output: OutputName


@dataclass(frozen=True, slots=True)
class _Written:
    """An image whose picture is written: its line for the results, and a description of its prediction."""

    record: Mapping[str, Any]
    line: str
    description: str


@dataclass(frozen=True, slots=True)
class _Prediction:
    """A prediction of files in progress."""

    predictor: Predictor
    task: Task
    ids: ImageIds | None
    crops: CropWriter | None
    folder: PredictionFolder
    options: PredictionOptions
    display: ProgressDisplay
    summary: PredictionSummary

    def predict_images(self, sources: Sources, stop: StopRequests) -> None:
        """Predict the images of the sources until a stop is requested; pictures are written in threads meanwhile."""
        total = None if sources.reads_input else sum(not self.folder.is_done(file) for file in sources.images)
        bar = self.display.add_bar("predicting", total)
        batch_size, workers = self.options.images_per_batch(self.predictor), self.options.threads()
        batches = stream_batches(self.predictor, self._undone(sources), batch_size, workers)
        with contextlib.closing(work_in_threads(batches, self._job, workers, stop)) as finished:
            for item, written in finished:
                self._record(item.key, written)
                self.display.advance(bar)
        self.display.remove_bar(bar)

    def predict_videos(self, sources: Sources, stop: StopRequests) -> None:
        """Predict videos and cameras, one after another, until a stop is requested.

        A video that a stop has cut has its frames so far, but counts as not done. A camera is done when it is stopped.
        """
        part = VideoPrediction(self.predictor, self.task, self.options, self.display)
        files: list[tuple[SourceFile, Any]] = [(file, file.path) for file in sources.videos]
        now = time.strftime("%Y%m%d-%H%M%S")
        names = [(camera, f"camera{camera}-{now}.mp4") for camera in sources.cameras]
        files += [(SourceFile(Path(name), name), camera) for camera, name in names]
        for file, source in files:
            if stop.number or self.folder.is_done(file):
                self.summary.skipped += self.folder.is_done(file)
                continue
            output = self.folder.reserve(file)
            try:
                record = part.predict(Video(source), file, output, self.folder.path, stop)
            except DataError as error:
                self._fail(_Image(file, output), error)
                continue
            if not stop.number or isinstance(source, int):
                self.folder.add(encode_json_line(record), record)
                self.summary.predicted += 1
            frames, declared = record["frames"], record["declared_frames"]
            rest = "" if declared is None or declared <= frames else f" of the {declared} that the file declares"
            self.display.say(f"{output.name}: {frames} frames{rest}")

    def _undone(self, sources: Sources) -> Iterator[tuple[_Image, Path]]:
        """Yield the images that are not done, also those on standard input; the names of all are reserved."""
        seen: set[str] = set()
        for file in itertools.chain(sources.images, read_input_paths() if sources.reads_input else ()):
            if file.identity in seen:
                continue
            seen.add(file.identity)
            if self.folder.is_done(file):
                self.summary.skipped += 1
            else:
                yield _Image(file, self.folder.reserve(file)), file.path

    def _job(self, item: StreamItem[_Image]) -> Callable[[], _Written]:
        """Return the work on a predicted image, with its id; for one that cannot be used, the work raises its error."""
        image_id: int | str = 0
        if item.error is None:
            try:
                image_id = self.folder.take_id(None if self.ids is None else self.ids.find(item.key.file.name))
            except UsageError as error:
                item.error = error
        return functools.partial(self._write, item, image_id)

    def _write(self, item: StreamItem[_Image], image_id: int | str) -> _Written:
        """Write the picture of an image, and return its line for the results."""
        photo, prediction, image = item.photo, item.prediction, item.key
        if item.error is not None:
            raise item.error
        assert photo is not None, "an image without an error has pixels"
        record = {
            "image_id": image_id,
            "file_name": image.output.name,
            "source": image.file.identity,
            "height": photo.shape[0],
            "width": photo.shape[1],
            "picture": image.output.picture,
            "rows": add_class_names(self.task, sort_results(self.task.rows(prediction, image_id))),
        }
        line = encode_json_line(record)
        if self.options.pictures:
            picture = self.folder.path / image.output.picture
            picture.parent.mkdir(parents=True, exist_ok=True)
            write_image(picture, self.task.draw(photo, prediction, self.options.score))
        if self.crops is not None:
            self.crops.write(image.output.name, photo, prediction, self.options.score)
        write_image_files(self.task, prediction, self.folder.path, image.output.name)
        return _Written(record, line, self.task.describe(prediction, self.options.score))

    def _record(self, image: _Image, written: Future[_Written]) -> None:
        """Append an image to the results once its picture is written; record a failure if it has no valid numbers."""
        try:
            done = written.result()
        except (DataError, UsageError) as error:
            self._fail(image, error)
            return
        self.folder.add(done.line, done.record)
        self.summary.predicted += 1
        self.display.say(f"{image.output.name}: {done.description}")

    def _fail(self, image: _Image, error: DataError | UsageError) -> None:
        """Record that an image cannot be predicted."""
        reason = ": ".join(filter(None, (error.case, error.what, error.fix)))
        self.folder.add_failure(image.output.name, image.file.identity, reason)
        self.summary.failures[str(image.file.path)] = reason
        self.display.say(f"{image.output.name}: cannot be predicted: {reason}")
