"""Prediction of videos: an annotated video, and a line of results for each frame."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...formats import JsonLinesWriter, encode_json_line, sort_results
from ...inference import Picture, Predictor, SourceFile, StreamItem, Video, VideoWriter, stream_batches
from ...structures import DataError
from ..logging.progress import ProgressDisplay
from ..loop.stop_requests import StopRequests
from ..tasks import Task
from .class_names import add_class_names
from .options import PredictionOptions
from .output_folder import OutputName
from .overlap import work_in_threads


@dataclass(frozen=True, slots=True)
class VideoPrediction:
    """The prediction of videos with one model, in batches of frames."""

    predictor: Predictor
    task: Task
    options: PredictionOptions
    display: ProgressDisplay

    def predict(
        self, video: Video, file: SourceFile, output: OutputName, folder: Path, stop: StopRequests
    ) -> dict[str, Any]:
        """Predict a video until its end or a request to stop, and return its record for the results.

        Writes the annotated video to ``output.picture`` and a line for each frame to the file of this name with
        ``.jsonl``. One batch of frames is in memory, and a few more. Raises DataError if no frame can be decoded.
        """
        picture = folder / output.picture
        picture.parent.mkdir(parents=True, exist_ok=True)
        lines = picture.with_name(f"{picture.name}.jsonl")
        lines.unlink(missing_ok=True)
        bar = self.display.add_bar(output.name, video.declared_frames)
        workers = self.options.threads()
        batches = stream_batches(
            self.predictor, enumerate(video), self.options.images_per_batch(self.predictor), workers
        )
        frames, size = 0, (0, 0)
        job = functools.partial(self._job, video.frames_per_second)
        with (
            JsonLinesWriter(lines) as results,
            VideoWriter(picture, video.frames_per_second) as writer,
            contextlib.closing(work_in_threads(batches, job, workers, stop)) as finished,
        ):
            for item, work in finished:
                line, frame = work.result()
                results.append(line)
                if frame is not None:
                    writer.write(frame)
                assert item.photo is not None, "a decoded frame needs no further decoding"
                frames, size = frames + 1, item.photo.shape[:2]
                self.display.advance(bar)
        self.display.remove_bar(bar)
        if not frames:
            raise DataError(
                "no frame of this video can be decoded", "convert it to MP4", case="not-a-video", file=file.path
            )
        return {
            "file_name": output.name,
            "source": file.identity,
            "height": size[0],
            "width": size[1],
            "frames": frames,
            "declared_frames": video.declared_frames,
            "frames_per_second": video.frames_per_second,
            "picture": output.picture,
            "frame_results": f"{output.picture}.jsonl",
        }

    def _job(self, rate: float, item: StreamItem[int]) -> Callable[[], tuple[str, Picture | None]]:
        """Return the work on a frame: its line for the results, and its picture."""
        return functools.partial(self._work, rate, item)

    def _work(self, rate: float, item: StreamItem[int]) -> tuple[str, Picture | None]:
        """Return the line of a frame for the results, and its picture if pictures are drawn."""
        rows = add_class_names(self.task, sort_results(self.task.rows(item.prediction, item.key)))
        record: Mapping[str, Any] = {"frame": item.key, "seconds": round(item.key / rate, 6), "rows": rows}
        line = encode_json_line(dict(record))
        if not self.options.pictures or item.photo is None:
            return line, None
        return line, self.task.draw(item.photo, item.prediction, self.options.score)
