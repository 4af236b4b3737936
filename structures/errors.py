"""Errors that a user can fix: one line with the file, the image, the annotation, what is wrong and what to do.

Every class has its own exit code, so that a script that runs the command-line tools can tell bad data from a bad
config. Errors keep their fields when pickled, since data-loading workers raise them in another process.
"""

import os

import torch


class VertebraError(Exception):
    """Base class of the errors that a user can fix.

    ``what`` says what is wrong, ``fix`` what to do about it, and ``case`` is a short name (``zero-size-box``) by which
    reports count the errors. ``str(error)`` is one line.
    """

    exit_code = 1
    case = "error"
    reported_by_other_rank = False
    """Whether another process of the run has the same error and prints it."""

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
        location = [
            self.file,
            None if self.image_id is None else f"image_id={self.image_id}",
            None if self.annotation_id is None else f"ann_id={self.annotation_id}",
        ]
        parts = [self.case, *(item for item in location if item is not None), self.what, self.fix]
        # A file name may contain a line break, but the message must stay on one line.
        return ": ".join(part for part in parts if part).replace("\r", "\\r").replace("\n", "\\n")

    def __reduce__(self):
        return _rebuild, (type(self), self.__dict__)


def _rebuild(error_type: type[VertebraError], fields: dict) -> VertebraError:
    error = error_type.__new__(error_type, fields["what"])
    error.__dict__.update(fields)
    return error


class VerificationError(VertebraError):
    """An exported file whose predictions differ from those of the model."""

    exit_code = 1
    case = "verification"


class UsageError(VertebraError):
    """A wrong command line or config."""

    exit_code = 2
    case = "usage"


class DataError(VertebraError):
    """A file, image or annotation that cannot be used."""

    exit_code = 3
    case = "bad-data"


class CheckpointError(VertebraError):
    """A checkpoint or weights file that cannot be read or does not fit the model."""

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
    """Another process of the run has ended or does not respond."""

    exit_code = 8
    case = "peer"


class MemoryFullError(VertebraError):
    """The device or the host ran out of memory."""

    exit_code = 7
    case = "out-of-memory"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that Python, a device or torch's CPU allocator has run out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
