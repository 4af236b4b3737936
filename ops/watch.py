"""Numbers to watch beside the losses: parts hand them over while somebody collects them, and log nothing themselves.

They stay on their device. A part asks :func:`is_collecting_metrics` before it computes one.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor

Notes = dict[str, list[Tensor]]
"""By name the values whose mean it is, in as many pieces as were noted: a micro-batch each."""

_notes: Notes | None = None
_prefix = ""


@contextlib.contextmanager
def collect_metrics() -> Iterator[Notes]:
    """Collect what is noted inside."""
    global _notes
    before, _notes = _notes, {}
    try:
        yield _notes
    finally:
        _notes = before


def is_collecting_metrics() -> bool:
    """Whether somebody collects."""
    return _notes is not None


def note(name: str, values: Tensor) -> None:
    """Hand over values of which the mean tells something; there may be none of them.

    All processes of a run must note the same names in the same order, whatever their images hold.
    """
    if _notes is not None:
        _notes.setdefault(_prefix + name, []).append(values.detach().flatten().float())


@contextlib.contextmanager
def metric_prefix(prefix: str) -> Iterator[None]:
    """What is noted inside has this before its name."""
    global _prefix
    before, _prefix = _prefix, _prefix + prefix
    try:
        yield
    finally:
        _prefix = before
