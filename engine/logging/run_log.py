"""The log of a training run: a progress bar or plain lines, ``metrics.jsonl`` and TensorBoard curves."""

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

TOO_HIGH = "the learning rate may be too high, or the initial weights or the labels may be wrong"
TOO_LOW = "annotations may be missing, or the images may be nearly identical"


class RunLog:
    """The log of a run: collects the values of each step, and writes their means every ``run.log_every`` steps.

    ``start`` is the last step already taken (0 in a new run), and ``pending_values`` the value of
    :attr:`pending_values` at that step, from the checkpoint.
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
        # On a full disk closing the writer fails too, and the error on its way out already reports that.
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext(), self._file:
            self._writer.close()

    def _show_all_but_write_errors(self, error: threading.ExceptHookArgs) -> None:
        """Show an error of a thread unless it is an OSError of TensorBoard's writer, which its next flush raises."""
        if not isinstance(error.exc_value, OSError):
            self._show_error(error)

    def step(self, step: int, numbers: Mapping[str, float], *, images: int, waited: float) -> None:
        """Add the values of step ``step`` (counted from 1), its number of images, and its seconds of waiting for data.

        At a log step, or after the first step of the process, it also writes or shows them.
        """
        for name, value in numbers.items():
            self.pending_values.setdefault(name, []).append(value)
        self._count += 1
        self._images += images
        self._waited += waited
        self.display.advance(self._bar)
        if self.config.is_logged(step):
            self._write_means(step, numbers["lr"])
        elif step == self._first_step:  # show a sign of life: the first record may be minutes away
            self._show(step, f"{_loss_text(numbers)}  lr {numbers['lr']:.2e}  first step {self._elapsed():.1f} s")

    def _elapsed(self) -> float:
        return time.perf_counter() - self._since

    def _write_means(self, step: int, lr: float) -> None:
        """Write and show a record with the means over the steps since the last record."""
        elapsed = self._elapsed()
        # Each value has its own count: some are not reported in every step.
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
        """Show text beside the bar, or print it in a line with the estimated remaining time."""
        if self.display.console.is_terminal:
            self.display.set_numbers(self._bar, line)
            return
        steps = self.config.recipe.schedule.steps
        eta = "" if seconds_per_step is None else f"  ETA {seconds_per_step * (steps - step):.0f} s"
        self.display.say(f"step {step}/{steps}  {line}{eta}")

    def _restart(self) -> None:
        """Start a new record: clear the values and reset the time."""
        self.pending_values: dict[str, list[float]] = {}
        """Values of the steps since the last record, by name."""
        self._count = self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def record(self, step: int, numbers: Mapping[str, float | None], group: str) -> None:
        """Write the values of a step to ``metrics.jsonl`` and TensorBoard, as ``GROUP/NAME``."""
        print(json.dumps({"step": step, "group": group, **numbers}), file=self._file, flush=True)
        for name, value in numbers.items():
            if value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside the block, by an evaluation, out of the logged training speed."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def _loss_text(numbers: Mapping[str, float]) -> str:
    """Return a text with the losses among the values, such as ``class 0.512  box 0.130``."""
    return "  ".join(f"{name.removeprefix('loss_')} {numbers[name]:.3f}" for name in numbers if "loss" in name)


def range_warnings(config: ExperimentConfig, step: int, means: Mapping[str, float]) -> list[str]:
    """Return a warning for each mean outside its expected range.

    The check takes place once, at the first record at or after ``run.expected_from_step``; other steps return nothing.
    """
    first = config.run.expected_from_step
    if step < first or any(map(config.is_logged, range(first, step))):
        return []
    lines = []
    for name, (low, high) in config.run.expected_ranges.items():
        if name not in means:
            lines.append(f"WARNING: run.expected_ranges: no value named {name!r} is logged: {suggest(name, means)}")
        elif not low <= (value := means[name]) <= high:
            cause = TOO_HIGH if value > high else TOO_LOW
            lines.append(f"WARNING: {name} is {value:.3g} at step {step}, expected {low} to {high}: {cause}")
    return lines
