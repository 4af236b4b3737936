"""A run's folder: who may write in it, what it was started with, and what a resumed run may change."""

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTimeout

from ..backbones import WeightsOrigin, weights_origin
from ..data import Dataset, require_same_classes
from ..formats import write_json
from ..models import resolve_input
from ..structures import UsageError
from .checkpoints.atomic_folder import is_disk_full
from .checkpoints.checkpoint import Checkpoint, open_checkpoint
from .checkpoints.series import checkpoint_paths, rename_damaged_checkpoints
from .config import FREE_ON_RESUME, ExperimentConfig, config_changes
from .logging.run_log import val_records


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a run begins with, or goes on from; the first process opens it once for all."""

    config: ExperimentConfig
    """Resolved."""
    resumed: Checkpoint | None = None
    """The run's own checkpoint, of a resumed run that has one."""
    source: Checkpoint | None = None
    """That of ``start_from``, of a new run that has it."""

    @property
    def step(self) -> int:
        """The last step that was taken."""
        return 0 if self.resumed is None else self.resumed.step

    def origin(self) -> WeightsOrigin | None:
        """Where the weights come from that the run began with; None where they were random."""
        model = self.config.model
        if self.resumed is not None:
            return self.resumed.origin
        if self.source is not None:
            path, before = str(self.source.path), self.source.origin
            return WeightsOrigin(path) if before is None else before.trained_further(path)
        return None if model.weights is None else weights_origin(model.weights, model.backbone.name)


class RunFolder:
    """The folder of a run, held by one process at a time.

    A file lock holds it, which the system lifts when the process ends, however it ends.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
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
                f"another run writes here ({self._read_holder()})",
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
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
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
        """Return which process holds the folder. The lock file itself cannot be read on every system."""
        try:
            return self._holder.read_text() or "another process"
        except OSError:
            return "another process"

    def open(self, config: ExperimentConfig, resume: bool, notify: Callable[[str], None]) -> StartingPoint:
        """Begin a new run, or go on with the one that is here; the resolved config is stored.

        UsageError where a new run finds another here, or a resumed one none, or one of other numbers.
        """
        return self._resume(config, notify) if resume else self._start(config)

    def _start(self, config: ExperimentConfig) -> StartingPoint:
        if checkpoint_paths(self.checkpoints) or (self.path / "metrics.jsonl").exists():
            raise UsageError(
                "this folder holds a run already",
                "continue it with --resume, or choose another --output",
                file=self.path,
            )
        return self._begin(config)

    def _begin(self, config: ExperimentConfig) -> StartingPoint:
        """With the input that the weights it starts from want written out."""
        source = None if config.model.start_from is None else open_checkpoint(config.model.start_from)
        if source is None or config.model.input is not None:
            model = resolve_input(config.model)
        else:
            model = config.model.replace(input=source.config.model.input)
        return StartingPoint(self._store(config.replace(model=model)), source=source)

    def _store(self, config: ExperimentConfig) -> ExperimentConfig:
        """Write the resolved config: from here on it is data and runs no code."""
        write_json(self.path / "config.json", config.model_dump(mode="json"))
        return config

    def _resume(self, config: ExperimentConfig, notify: Callable[[str], None]) -> StartingPoint:
        """From the newest sound checkpoint. The file that the run's weights came from is not needed again."""
        if not checkpoint_paths(self.checkpoints):
            if not (self.path / "config.json").exists():
                raise UsageError(
                    "there is no run here to resume", "check --output, or leave out --resume", file=self.path
                )
            notify(f"{self.path}: there is no checkpoint yet, so the run begins anew, with this config")
            return self._begin(config)
        checkpoint = open_checkpoint(self.path, notify)
        if config.model.input is None:
            model = config.model.replace(input=checkpoint.config.model.input)
            config = config.replace(model=model)
        changes = config_changes(checkpoint.config.model_dump(mode="json"), config.model_dump(mode="json"))
        refused = {key: pair for key, pair in sorted(changes.items()) if key.split(".")[0] not in FREE_ON_RESUME}
        if refused:
            shown = ", ".join(f"{key} was {before!r}, is {after!r}" for key, (before, after) in refused.items())
            raise UsageError(
                f"the config differs from the run's: {shown}", "resume with the same, or start anew", file=self.path
            )
        rename_damaged_checkpoints(self.checkpoints, checkpoint.path)
        return StartingPoint(self._store(config), resumed=checkpoint)

    def evaluated_step(self) -> int:
        """The step that ``eval.json`` is of; 0 where there is none."""
        return json.loads(self.scores.read_text())["step"] if self.scores.exists() else 0

    def best_step(self) -> int:
        """The step with the best of the first score, the earliest of equals; 0 where nothing was scored."""
        records = val_records(self.path / "metrics.jsonl")
        scores = {step: next(iter(numbers.values())) for step, numbers in records.items()}
        known = {step: score for step, score in scores.items() if score is not None}
        return max(known, key=known.__getitem__, default=0)

    def rewind(self, step: int) -> None:
        """Drop what lies past a step, and what a killed evaluation of it left: a resumed run writes them again."""
        if self.evaluated_step() > step:
            for file in (self.scores, self.picture):
                file.unlink(missing_ok=True)
        path, scored = self.path / "metrics.jsonl", self.evaluated_step() == step
        if not path.exists():
            return
        kept: list[str] = []
        for line in path.read_text().splitlines():
            try:
                record: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:  # a kill may cut the last line
                continue
            if record["step"] < step or (record["step"] == step and (record["group"] == "train" or scored)):
                kept.append(line + "\n")
        temporary = path.with_name(".metrics.jsonl.writing")
        temporary.write_text("".join(kept))
        temporary.replace(path)


def describe_data(train: Dataset, val: Dataset) -> dict[str, Any]:
    """What a checkpoint keeps of the data that it was trained and is evaluated on."""
    sums = {
        split: hashlib.sha256("\n".join(map(str, dataset.image_ids)).encode(errors="surrogateescape")).hexdigest()
        for split, dataset in (("train", train), ("val", val))
    }
    truth = {split: dataset.annotation_digest() for split, dataset in (("train", train), ("val", val))}
    return {"classes": train.classes, "image_id_digests": sums, "annotation_digests": truth}


def require_same_data(checkpoint: Checkpoint, data: Mapping[str, Any]) -> None:
    """Refuse to go on with other classes, images or annotations than the checkpoint's; ``data`` is from
    :func:`describe_data`."""
    require_same_classes(checkpoint.classes, data["classes"], ("the run", "the data"))
    changed = [
        f"{split} {what}"
        for what, before, now in (
            ("image ids", checkpoint.image_id_digests, data["image_id_digests"]),
            ("annotations", checkpoint.annotation_digests, data["annotation_digests"]),
        )
        for split in before
        if before[split] != now[split]
    ]
    if checkpoint.classes != data["classes"]:
        changed.append("category ids")
    if changed:
        raise UsageError(
            f"the {' and the '.join(changed)} are no longer those that the run began with",
            "resume with the same data, or start anew",
        )


def require_same_processes(checkpoint: Checkpoint, count: int) -> None:
    """Refuse to go on with another number of processes: sums in another order round in another way, and batch norms
    would see other shares of a batch."""
    if checkpoint.processes not in (None, count):
        raise UsageError(
            f"the run was trained by {checkpoint.processes} processes, this is {count}: it would not go on exactly",
            f"resume with {checkpoint.processes}",
        )
