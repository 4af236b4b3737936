"""When a run ends before its last step: its evaluations have got no better for too long."""

import math
from pathlib import Path
from typing import Literal

from ..logging.run_log import val_records


def evaluations_since_best(metrics: Path, measure: Literal["score", "loss"]) -> int:
    """How many of the evaluations that a run's ``metrics.jsonl`` holds came after the best one.

    The best has the highest first score, or the lowest ``loss``; of equals it is the earliest. It is a function of the
    file alone, so that a resumed run decides as the unbroken one. What could not be computed is the worst.
    """
    merits: dict[int, float] = {}  # by step
    for step, numbers in val_records(metrics).items():
        loss = numbers.get("loss")
        merit = next(iter(numbers.values())) if measure == "score" else loss and -loss
        merits[step] = -math.inf if merit is None else merit
    best = max(merits, key=merits.__getitem__, default=0)
    return sum(step > best for step in merits)
