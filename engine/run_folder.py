"""The folder of a run: its lock, the paths of its files, and the scores logged in it."""

import contextlib
import json
import math
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock
from filelock import Timeout as LockTimeout

from ..inference import checkpoint_paths
from ..structures import UsageError
from .checkpoints import is_disk_full


class RunFolder:
    """The folder of a run. As a context manager it locks the folder, so that only one process writes to it.

    The operating system releases the file lock when the process ends, even if it is killed. Raises UsageError if
    another process holds the lock, if the folder cannot be written, or if the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.scores = self.path / "eval.json"
        self.picture = self.path / "predictions.png"
        self._holder = self.path / "run.holder"
        self._lock = FileLock(self.path / "run.lock", timeout=0, thread_local=False)

    def __enter__(self) -> "RunFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        except LockTimeout:
            raise UsageError(
                f"another run is writing to this folder ({self._read_holder()})",
                "wait for it, or choose another --output",
                file=self.path,
            ) from None
        except OSError as error:
            self._lock.release()
            raise UsageError(
                f"the run folder cannot be written: {error.strerror}", "choose another with --output", file=self.path
            ) from error
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._holder.unlink()
        self._lock.release()
        if isinstance(error, OSError) and is_disk_full(error):
            raise UsageError(
                f"could not be written: {error.strerror}",
                "free some space, and continue with --resume",
                file=error.filename or self.path,
            ) from error

    def _read_holder(self) -> str:
        """Return the process that holds the lock, as text, from a second file: Windows cannot read a locked file."""
        try:
            return self._holder.read_text() or "another process"
        except OSError:
            return "another process"

    def holds_run(self) -> bool:
        """Return whether a run has written a checkpoint or a log record."""
        return bool(checkpoint_paths(self.checkpoints)) or self.metrics.exists()

    def require_unused(self) -> None:
        """Raise UsageError if a new run would overwrite another run."""
        if self.holds_run():
            fix = "continue it with --resume, or choose another --output"
            raise UsageError("this folder holds a run already", fix, file=self.path)

    def evaluated_step(self) -> int:
        """Return the step of the scores in ``eval.json``; 0 if there are none."""
        return json.loads(self.scores.read_text(encoding="utf-8"))["step"] if self.scores.exists() else 0

    def best_step(self, higher_is_better: bool = True) -> int:
        """Return the step with the best main score, the earliest in a tie; 0 if there are no evaluations.

        If no evaluation has a score, because nothing can be scored, this is the last evaluated step.
        """
        merits = self._merits("score", higher_is_better)
        if all(merit == -math.inf for merit in merits.values()):
            return max(merits, default=0)
        return max(merits, key=merits.__getitem__)

    def evaluations_since_best(self, measure: Literal["score", "loss"], higher_is_better: bool = True) -> int:
        """Return how many evaluations followed the best one, by the main score or by the lowest validation loss.

        The earliest wins a tie, and a missing value counts as the worst; 0 if all are missing. Only ``metrics.jsonl``
        is read, so that a resumed run stops at the same step as an uninterrupted one.
        """
        merits = self._merits(measure, higher_is_better and measure == "score")
        if all(merit == -math.inf for merit in merits.values()):
            return 0
        best = max(merits, key=merits.__getitem__)
        return sum(step > best for step in merits)

    def _merits(self, measure: Literal["score", "loss"], higher_is_better: bool) -> dict[int, float]:
        """Return the score or the negated loss of each evaluated step, so that higher is better."""
        merits: dict[int, float] = {}
        for step, numbers in self._evaluations().items():
            value = next(iter(numbers.values())) if measure == "score" else numbers.get("loss")
            if value is None:
                merits[step] = -math.inf
            else:
                merits[step] = value if higher_is_better else -value
        return merits

    def _evaluations(self) -> dict[int, dict[str, float | None]]:
        """Return the values of each evaluation by step; the main score is the first value."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
        records = [json.loads(line) for line in lines]
        return {record.pop("step"): record for record in records if record.pop("group") == "val"}

    def rewind(self, step: int) -> None:
        """Delete everything written after ``step``, or by an unfinished evaluation of it: a resumed run repeats it."""
        if self.evaluated_step() > step:
            for file in (self.scores, self.picture):
                file.unlink(missing_ok=True)
        scored = self.evaluated_step() == step
        if not self.metrics.exists():
            return
        lines: list[str] = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                record: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:  # the last line may be incomplete if the run was killed
                continue
            if record["step"] < step or (record["step"] == step and (record["group"] == "train" or scored)):
                lines.append(line + "\n")
        temporary = self.path / ".metrics.jsonl.writing"
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(self.metrics)
