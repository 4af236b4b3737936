"""Errors that a user can act on: one line that names the file, image and annotation, what is wrong and what to do.

Every class owns its exit code, so that a script around the command-line tools can tell bad data from a bad config.
Errors keep their fields when pickled, since data-loading workers raise them in another process.
"""

import os

import torch


class VertebraError(Exception):
    """An expected fault. ``case`` is its short name (``zero-size-box``); ``fix`` says what to do about it."""

    exit_code = 1
    case = "error"
    reported_by_other_rank = False
    """Whether another process of the run has this error too, and tells of it."""

    def __init__(
        self,
        what: str,
        fix: str = "",
        *,
        case: str | None = None,
        file: str | os.PathLike[str] | None = None,
        image_id: int | str | None = None,
        annotation_id: int | str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.case = case or type(self).case
        self.file = None if file is None else os.fspath(file)
        self.image_id = image_id
        self.annotation_id = annotation_id

    def __str__(self) -> str:
        places = [
            self.file,
            None if self.image_id is None else f"image_id={self.image_id}",
            None if self.annotation_id is None else f"ann_id={self.annotation_id}",
        ]
        parts = [self.case, *(place for place in places if place is not None), self.what, self.fix]
        # A file name may hold a line break; a log line may not.
        return ": ".join(part for part in parts if part).replace("\r", "\\r").replace("\n", "\\n")

    def __reduce__(self):
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[VertebraError], fields: dict) -> VertebraError:
    error = kind.__new__(kind, fields["what"])
    error.__dict__.update(fields)
    return error


class UsageError(VertebraError):
    """A wrong command line or config."""

    exit_code = 2
    case = "usage"


class DataError(VertebraError):
    """A file, image or annotation that cannot be used."""

    exit_code = 3
    case = "bad-data"


class CheckpointError(VertebraError):
    """Weights that cannot be read, or do not belong to this model."""

    exit_code = 4
    case = "checkpoint"


class NonFiniteError(VertebraError):
    """A loss or gradient that is NaN or infinite."""

    exit_code = 5
    case = "non-finite"


class WorkerError(VertebraError):
    """A data-loading worker that raised, died or hung."""

    exit_code = 6
    case = "worker"


class PeerError(VertebraError):
    """Another process of the run has gone, or does not answer."""

    exit_code = 8
    case = "peer"


class MemoryFullError(VertebraError):
    """The device or the host ran out of memory."""

    exit_code = 7
    case = "out-of-memory"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that Python, a device or torch's allocator on the host has no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
