"""A run's folder: who may write in it, what it was started with, and what a resumed run may change."""

import fcntl
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..structures import UsageError
from .checkpoint import Checkpoint, checkpoint_paths, open_checkpoint
from .config import FREE_ON_RESUME, ExperimentConfig, config_changes
from .evaluate import write_json


class RunFolder:
    """Held by one process at a time (a file lock that the system lifts when the process ends, however it ends)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._lock: IO[str] | None = None

    def __enter__(self) -> "RunFolder":
        lock_path = self.path / "run.lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = lock_path.open("a+")
        except OSError as error:
            raise UsageError(
                f"the run folder cannot be written: {error.strerror}", "choose another with --output", file=self.path
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise UsageError(
                f"another run writes here ({holder})", "wait for it, or choose another --output", file=self.path
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def start(self, config: ExperimentConfig) -> None:
        """Begin a new run: refuse a folder that holds one, store the resolved config."""
        if checkpoint_paths(self.checkpoints) or (self.path / "metrics.jsonl").exists():
            raise UsageError(
                "this folder holds a run already",
                "continue it with --resume, or choose another --output",
                file=self.path,
            )
        self.store(config)

    def store(self, config: ExperimentConfig) -> None:
        """Write the resolved config: from here on it is data and runs no code."""
        write_json(self.path / "config.json", config.model_dump(mode="json"))

    def resume(self, config: ExperimentConfig, notify: Callable[[str], None]) -> Checkpoint | None:
        """The newest sound checkpoint, or None where the run had written none; refuses a config of other numbers."""
        if not checkpoint_paths(self.checkpoints):
            self.store(config)
            return None
        checkpoint = open_checkpoint(self.path, notify)
        changes = config_changes(checkpoint.config.model_dump(mode="json"), config.model_dump(mode="json"))
        refused = {key: pair for key, pair in sorted(changes.items()) if key.split(".")[0] not in FREE_ON_RESUME}
        if refused:
            shown = ", ".join(f"{key} was {before!r}, is {after!r}" for key, (before, after) in refused.items())
            raise UsageError(
                f"the config differs from the run's: {shown}", "resume with the same, or start anew", file=self.path
            )
        self.store(config)
        return checkpoint

    def truncate_metrics(self, step: int) -> None:
        """Drop lines of ``metrics.jsonl`` past a step, which a resumed run writes again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept: list[str] = []
        for line in path.read_text().splitlines():
            try:
                record: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:  # a kill may cut the last line
                continue
            if record["step"] <= step:
                kept.append(line + "\n")
        temporary = path.with_name(".metrics.jsonl.writing")
        temporary.write_text("".join(kept))
        temporary.replace(path)
