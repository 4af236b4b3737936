"""What a run reports while it goes: a bar or plain lines, ``metrics.jsonl`` and TensorBoard curves."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch.utils.tensorboard import SummaryWriter

from ...structures import suggest
from ..config import ExperimentConfig
from .memory import peak_memory
from .progress import ProgressDisplay

TOO_HIGH = "the learning rate may be too high for the batch, the first weights others, or the labels another image's"
TOO_LOW = "annotations may be missing from the data, or the images be all alike"


class RunLog:
    """Collects each step's numbers, and writes their means at the steps that the config says.

    ``start`` is the step that a run goes on from, and ``pending_values`` what :attr:`pending_values` was there.
    """

    def __init__(
        self,
        folder: Path,
        config: ExperimentConfig,
        display: ProgressDisplay,
        *,
        start: int,
        pending_values: Mapping[str, Sequence[float]],
        device: torch.device,
    ) -> None:
        self.folder, self.config, self.display, self.device = folder, config, display, device
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._restart()
        self.pending_values = {name: [*values] for name, values in pending_values.items()}
        self._first_step = start + 1
        self._bar = display.add_bar("step", config.recipe.schedule.steps, completed=start)

    def __enter__(self) -> "RunLog":
        self._show_error, threading.excepthook = threading.excepthook, self._show_all_but_write_errors
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        threading.excepthook = self._show_error
        # A full disk refuses what is left too, and that it is full is reported already.
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext(), self._file:
            self._writer.close()

    def _show_all_but_write_errors(self, error: threading.ExceptHookArgs) -> None:
        """Show an error of a thread, except for TensorBoard's on a full disk: its next flush raises that one here."""
        if not isinstance(error.exc_value, OSError):
            self._show_error(error)

    def step(self, step: int, numbers: Mapping[str, float], *, images: int, waited: float) -> None:
        """Take in step ``step``, counted from 1: its numbers, and the seconds that it waited for its ``images``."""
        for name, value in numbers.items():
            self.pending_values.setdefault(name, []).append(value)
        self._count += 1
        self._images += images
        self._waited += waited
        self.display.advance(self._bar)
        if self.config.is_logged(step):
            self._write_means(step, numbers["lr"])
        elif step == self._first_step:  # the first record may be minutes away
            self._show(step, f"{_loss_text(numbers)}  lr {numbers['lr']:.2e}  first step {self._elapsed():.1f} s")

    def _elapsed(self) -> float:
        return time.perf_counter() - self._since

    def _write_means(self, step: int, lr: float) -> None:
        """Write a record of the steps since the last one, and show it."""
        elapsed = self._elapsed()
        # Some numbers are not there in every step.
        record = {name: sum(values) / len(values) for name, values in self.pending_values.items()}
        record |= {"lr": lr, "images_per_second": self._images / elapsed, "data_wait": self._waited / elapsed}
        record["peak_memory"] = peak_memory(self.device)
        self.record(step, record, "train")
        line = (
            f"{_loss_text(record)}  lr {lr:.2e}  {record['images_per_second']:.1f} images/s  "
            f"data wait {100 * record['data_wait']:.0f}%"
        )
        self._show(step, line, elapsed / self._count)
        for warning in range_warnings(self.config, step, record):
            self.display.say(warning)
        self._restart()

    def _show(self, step: int, line: str, seconds_per_step: float | None = None) -> None:
        """Show numbers beside the bar, or in a line with the time that the other steps will take."""
        if self.display.console.is_terminal:
            self.display.set_numbers(self._bar, line)
            return
        steps = self.config.recipe.schedule.steps
        eta = "" if seconds_per_step is None else f"  ETA {seconds_per_step * (steps - step):.0f} s"
        self.display.say(f"step {step}/{steps}  {line}{eta}")

    def _restart(self) -> None:
        """Start to collect the numbers of the next record."""
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
        """Leave the time that is spent inside, by an evaluation, out of the training's."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began


def _loss_text(numbers: Mapping[str, float]) -> str:
    """Return the losses among numbers as text."""
    return "  ".join(f"{name.removeprefix('loss_')} {numbers[name]:.3f}" for name in numbers if "loss" in name)


def range_warnings(config: ExperimentConfig, step: int, means: Mapping[str, float]) -> list[str]:
    """Return a line for each mean outside its expected range, at the first record from ``expected_from_step`` on."""
    first = config.run.expected_from_step
    if step < first or any(map(config.is_logged, range(first, step))):
        return []
    lines = []
    for name, (low, high) in config.run.expected_ranges.items():
        if name not in means:
            lines.append(f"WARNING: the range of {name!r} is of nothing that is logged: {suggest(name, means)}")
        elif not low <= (value := means[name]) <= high:
            meaning = TOO_HIGH if value > high else TOO_LOW
            lines.append(f"WARNING: {name} is {value:.3g} by step {step}, and expected from {low} to {high}: {meaning}")
    return lines
