"""What a run says while it goes: a live bar or plain lines, ``metrics.jsonl`` and TensorBoard curves."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from ..config import ExperimentConfig
from .memory import peak_memory


def val_records(path: Path) -> dict[int, dict[str, float | None]]:
    """The numbers of each evaluation that a run's ``metrics.jsonl`` holds, the main score first, by step."""
    records = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return {record.pop("step"): record for record in records if record.pop("group") == "val"}


class RunLog:
    """Collects each step's numbers; writes their means at the steps that the config says.

    ``start`` is the step that a run goes on from, and ``pending_values`` what was :attr:`pending_values` there.
    """

    def __init__(
        self,
        folder: Path,
        config: ExperimentConfig,
        *,
        start: int,
        pending_values: Mapping[str, Sequence[float]],
        device: torch.device,
        console: Console,
    ) -> None:
        self.folder, self.config, self.device, self.console = folder, config, device, console
        self._file = (folder / "metrics.jsonl").open("a")
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._restart()
        self.pending_values = {name: [*values] for name, values in pending_values.items()}
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=config.recipe.schedule.steps, completed=start, numbers="")

    def __enter__(self) -> "RunLog":
        self._show_fault, threading.excepthook = threading.excepthook, self._show_but_writes
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
        threading.excepthook = self._show_fault
        # A disk that is full refuses what is left too; that it is full has been said.
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext(), self._file:
            self._writer.close()

    def _show_but_writes(self, fault: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread fails where the disk is full; its next flush raises the same here, for one line."""
        if not isinstance(fault.exc_value, OSError):
            self._show_fault(fault)

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, numbers: Mapping[str, float], *, images: int, waited: float) -> dict[str, float]:
        """Take in step ``step`` (counted from 1): its numbers, the images it saw and the seconds it waited for them.

        Returns the means that this wrote, if it did.
        """
        for name, value in numbers.items():
            self.pending_values.setdefault(name, []).append(value)
        self._count += 1
        self._images += images
        self._waited += waited
        self._progress.advance(self._task)
        return self._write_means(step, numbers["lr"]) if self.config.is_logged(step) else {}

    def _write_means(self, step: int, lr: float) -> dict[str, float]:
        elapsed = time.perf_counter() - self._since
        record = {
            name: sum(values) / len(values) for name, values in self.pending_values.items()
        }  # some not in every step
        record |= {"lr": lr, "images_per_second": self._images / elapsed, "data_wait": self._waited / elapsed}
        record["peak_memory"] = peak_memory(self.device)
        self.record(step, record, "train")
        losses = "  ".join(f"{name.removeprefix('loss_')} {record[name]:.3f}" for name in record if "loss" in name)
        line = (
            f"{losses}  lr {lr:.2e}  {record['images_per_second']:.1f} images/s  "
            f"data wait {100 * record['data_wait']:.0f}%"
        )
        if self.console.is_terminal:
            self._progress.update(self._task, numbers=line)
        else:
            steps = self.config.recipe.schedule.steps
            remaining = elapsed / self._count * (steps - step)
            self.say(f"step {step}/{steps}  {line}  ETA {remaining:.0f} s")
        self._restart()
        return record

    def _restart(self) -> None:
        self.pending_values: dict[str, list[float]] = {}
        """The numbers of the steps since the last record."""
        self._count = self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def record(self, step: int, numbers: Mapping[str, float | None], group: str) -> None:
        """Write numbers of a step to the file and the curves."""
        print(json.dumps({"step": step, "group": group, **numbers}), file=self._file, flush=True)
        for name, value in numbers.items():
            if value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside (an evaluation) is no training time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
