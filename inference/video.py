"""Videos and cameras as streams of RGB frames, and videos that are written from pictures."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..structures import DataError, UsageError
from .drawing import Picture
from .preprocessing import Photo

DEFAULT_RATE = 25.0
"""Frames per second of a video that does not state it, or states what cannot be true."""
_MAX_RATE = 1000.0
_CODEC = "mp4v"  # MPEG-4 part 2: the only codec of MP4 that every build of OpenCV encodes


class Video:
    """The frames of a video file, or of a camera given by its number, as RGB arrays; it can be iterated once.

    Frames are decoded one at a time and are upright: the rotation that phones store is applied. Raises DataError if the
    file cannot be opened as a video, and UsageError if there is no such camera.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else os.fspath(source))
        if not self._capture.isOpened():
            if isinstance(source, int):
                raise UsageError(f"there is no camera {source}", "give another number, or a file")
            missing = not Path(source).exists()
            raise DataError(
                "the file does not exist" if missing else "this is not a video that can be decoded",
                "check the path" if missing else "convert it to MP4",
                case="missing-file" if missing else "not-a-video",
                file=source,
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if math.isfinite(rate) and 0 < rate <= _MAX_RATE else DEFAULT_RATE
        count = 0.0 if isinstance(source, int) else self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.declared_frames = int(count) if math.isfinite(count) and count > 0 else None
        """The number of frames by the header of the file, which may be an estimate; None if it is not known."""

    def __iter__(self) -> Iterator[Photo]:
        try:
            while True:
                found, frame = self._capture.read()
                if not found:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file or the camera."""
        self._capture.release()


class VideoWriter:
    """An MP4 file that pictures are written to; as a context manager it is complete, and has its name, at the end.

    All frames have the size of the first picture, rounded up to even numbers; other pictures are cut or padded at the
    bottom and right. Until the end, and after an error, the file has a hidden name.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self.path, self._rate = path, frames_per_second
        self._temporary = path.with_name(f".{path.name}.writing.mp4")
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            if error is None:
                self._temporary.replace(self.path)

    def write(self, picture: Picture) -> None:
        """Add a frame."""
        if self._writer is None or self._size is None:
            height, width = (side + side % 2 for side in picture.shape[:2])
            self._size = height, width
            code = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(os.fspath(self._temporary), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise UsageError("this video cannot be written", "choose another folder", file=self.path)
        frame = picture[: self._size[0], : self._size[1]]
        missing = [(0, side - present) for side, present in zip(self._size, frame.shape[:2], strict=True)]
        if any(after for _, after in missing):
            frame = np.pad(frame, (*missing, (0, 0)), mode="edge")
        self._writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))
