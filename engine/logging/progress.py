"""Progress of a command: bars on a terminal, a line every half minute elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0


class OptionalConsole(Console):
    """A console for output that nobody has to read: if the reader closes the pipe, the rest is discarded."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ProgressDisplay:
    """Progress bars if the console is a terminal; otherwise a line every ``SECONDS_BETWEEN_LINES``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator["ProgressDisplay"]:
        """Show the bars inside the block."""
        with self._bars:
            yield self

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def add_bar(self, label: str, total: int | None, completed: int = 0) -> TaskID:
        """Add a bar for ``total`` steps, None if their number is not known, and return its ID."""
        return self._bars.add_task(label, total=total, completed=completed, numbers="")

    def remove_bar(self, bar: TaskID) -> None:
        """Remove a bar."""
        self._bars.remove_task(bar)

    def advance(self, bar: TaskID) -> None:
        """Move a bar forward by one step."""
        self._bars.advance(bar)

    def set_numbers(self, bar: TaskID, numbers: str) -> None:
        """Show a text with numbers, such as losses, beside a bar."""
        self._bars.update(bar, numbers=numbers)

    def track(self, items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
        """Yield the items, and show how many of ``total`` are done and the estimated remaining time."""
        bar = self.add_bar(label, total)
        started = last_line = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            self.advance(bar)
            now = time.monotonic()
            if not self.console.is_terminal and now - last_line >= SECONDS_BETWEEN_LINES and done < total:
                remaining = (now - started) / done * (total - done)
                self.say(f"{label}: {done}/{total} {unit}  ETA {remaining:.0f} s")
                last_line = now
        self.remove_bar(bar)
