"""The output folder of a prediction: what is done, the names of pictures, and the results as they come."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTimeout

from ...formats import (
    JsonLinesWriter,
    encode_json_line,
    read_json,
    read_json_lines,
    read_lines_at,
    write_json,
    write_json_list,
)
from ...inference import SourceFile, is_below, is_video
from ...structures import UsageError
from ..tasks import Task, write_results_files
from .class_names import remove_class_names

RESULTS, FAILURES, SETTINGS, IMAGES = "results.jsonl", "failed.jsonl", "prediction.json", "images.json"
_LOCK = ".predict.lock"
_JPEG_SUFFIXES = (".jpg", ".jpeg")


def require_unused_output(path: Path, resume: bool) -> None:
    """Make an output folder; raise UsageError if it has files, unless they are of a prediction that is resumed."""
    path.mkdir(parents=True, exist_ok=True)
    files = [file.name for file in path.iterdir() if file.name != _LOCK]
    if files and not resume:
        raise UsageError(
            "the output folder is not empty",
            "continue its prediction with --resume, or choose another --output",
            file=path,
        )
    if files and SETTINGS not in files:
        raise UsageError(
            "this folder has files, but no prediction that could be resumed", "choose another --output", file=path
        )


@dataclass(frozen=True, slots=True)
class OutputName:
    """The name of an image or video in the results, and that of its picture in the output folder."""

    name: str
    picture: str


class PredictionFolder:
    """The output folder of a prediction; as a context manager it locks the folder and opens its files.

    ``results.jsonl`` gets a line for each predicted image, in one write, after its picture is written. So whatever
    ends the process, an image is either done or has no line, and ``resume`` continues. ``failed.jsonl`` lists the files
    that could not be predicted since the last start. ``settings`` are kept in ``prediction.json``: a resumed prediction
    must have the same. Raises UsageError if they differ, if another process uses the folder, or if it is not empty.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self._settings, self._resume = settings, resume
        self._done: set[str] = set()
        self._pictures: set[str] = set()
        self._ids: set[int | str] = set()
        self._next_id = 1
        self._lock = FileLock(path / _LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> "PredictionFolder":
        require_unused_output(self.path, self._resume)
        try:
            self._lock.acquire()
        except LockTimeout:
            raise UsageError(
                "another process is predicting into this folder", "wait for it, or choose another", file=self.path
            ) from None
        try:
            self._check_settings()
            self._results = JsonLinesWriter(self.path / RESULTS)
            for _, record in read_json_lines(self.path / RESULTS):
                self._remember(record)
            (self.path / FAILURES).unlink(missing_ok=True)
            self._failures = JsonLinesWriter(self.path / FAILURES)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in (self._results, self._failures):
            file.close()
        self._lock.release()

    def _check_settings(self) -> None:
        """Write the settings of a new prediction, or raise UsageError if those of a resumed one are others."""
        path = self.path / SETTINGS
        given = json.loads(json.dumps(self._settings))
        if not path.exists():
            write_json(path, given)
            return
        stored = read_json(path)
        for name, value in given.items():
            if stored.get(name) != value:
                raise UsageError(
                    f"cannot be resumed with another {name}: it was {stored.get(name)!r:.80}, and is {value!r:.80}",
                    "give the same model and options, or choose another --output",
                    file=self.path,
                )

    def _remember(self, record: Mapping[str, Any]) -> None:
        """Take note of a line of ``results.jsonl``: its file is done, and its names and id are taken."""
        self._done.add(record["source"])
        self._pictures.add(record["picture"].casefold())
        if "image_id" in record:
            self.take_id(record["image_id"])

    def require_outside(self, file: SourceFile) -> None:
        """Raise UsageError for a file that is in the output folder: a picture might overwrite it."""
        if is_below(file.path, self.path):
            raise UsageError("this file is in the output folder", "choose another --output", file=file.path)

    def is_done(self, file: SourceFile) -> bool:
        """Return whether the file was predicted before."""
        return file.identity in self._done

    def reserve(self, file: SourceFile) -> OutputName:
        """Return the names of a file in the output, and reserve them.

        JPEG and PNG files have pictures of the same name and format (``a/x.jpg``), others have PNG files whose names
        end in both suffixes (``x.bmp.png``), and videos MP4 files, so that files that differ in their suffix only have
        different pictures. If a file of another folder has the name already, eight digits of the hash of the path
        follow the stem. Raises UsageError for a file that is in the output folder itself.
        """
        self.require_outside(file)
        output = OutputName(file.name, picture_name(file))
        if output.picture.casefold() in self._pictures:
            digits = hashlib.sha256(file.identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            path = PurePosixPath(file.name)
            renamed = SourceFile(file.path, path.with_name(f"{path.stem}-{digits}{path.suffix}").as_posix())
            output = OutputName(renamed.name, picture_name(renamed))
        self._pictures.add(output.picture.casefold())
        return output

    def take_id(self, image_id: int | str | None = None) -> int | str:
        """Return an image id that no other image gets: the next number, or ``image_id``.

        Raises UsageError if another image has it.
        """
        image_id = self._next_id if image_id is None else image_id
        if image_id in self._ids:
            raise UsageError(f"another image has the id {image_id!r} already", "predict one of them")
        self._ids.add(image_id)
        if isinstance(image_id, int):
            self._next_id = max(self._next_id, image_id + 1)
        return image_id

    def add(self, line: str, record: Mapping[str, Any]) -> None:
        """Append the line of a predicted file to the results; ``record`` is its content."""
        self._results.append(line)
        self._done.add(record["source"])

    def add_failure(self, name: str, source: str, reason: str) -> None:
        """Append a file that cannot be predicted to ``failed.jsonl``."""
        self._failures.append(encode_json_line({"file_name": name, "source": source, "reason": reason}))

    def write_results(self, task: Task) -> list[str]:
        """Write the results files and ``images.json`` of all images that are done; return the names of the files.

        They are read from ``results.jsonl`` one by one, so the memory that this takes hardly depends on their number.
        """
        entries = []
        for position, record in read_json_lines(self.path / RESULTS):
            if (image_id := record.get("image_id")) is not None:
                entries.append((isinstance(image_id, str), image_id, position, record["file_name"]))
        entries.sort()
        positions = [entry[2] for entry in entries]
        rows = StoredRows(self.path / RESULTS, positions)
        names = write_results_files(task, rows, self.path, {entry[1]: entry[3] for entry in entries})
        records = read_lines_at(self.path / RESULTS, positions)
        write_json_list(self.path / IMAGES, map(_image_entry, records))
        return names


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The results rows of the lines at these positions of a ``results.jsonl``, read again in each iteration."""

    path: Path
    positions: Sequence[int]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for record in read_lines_at(self.path, self.positions):
            yield from map(remove_class_names, record["rows"])


def picture_name(file: SourceFile) -> str:
    """Return the name of the picture of an image or a video: relative to the output folder."""
    suffix = os.path.splitext(file.name)[1].lower()  # noqa: PTH122
    if suffix in (".png", ".mp4", *_JPEG_SUFFIXES):
        return file.name
    return f"{file.name}.mp4" if is_video(file.path) else f"{file.name}.png"


def _image_entry(record: Mapping[str, Any]) -> str:
    """Return the entry of an image in ``images.json``."""
    fields = {name: record[name] for name in ("file_name", "height", "width")}
    return encode_json_line({"id": record["image_id"], **fields})
