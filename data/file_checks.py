"""Looking at every image file before the first step."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ..structures import DataError
from .report import DataReport

_BLOCK = 4096  # images handed to the threads at a time: each waiting one costs memory


def check_files(
    image_ids: Sequence[int | str], check: Callable[[int], list[str]], report: DataReport
) -> Bool[ndarray, " n"]:
    """Which image files can be used, by threads. ``check(place)`` gives notes worth counting or raises DataError.

    What it finds goes to the report, in the order of the images.
    """

    def look(place: int) -> DataError | list[str]:
        try:
            return check(place)
        except DataError as error:
            return error

    usable = np.ones(len(image_ids), bool)
    with ThreadPoolExecutor(max_workers=min(16, 4 * (os.cpu_count() or 1))) as pool:
        for first in range(0, len(image_ids), _BLOCK):
            block = range(first, min(first + _BLOCK, len(image_ids)))
            for place, outcome in zip(block, pool.map(look, block), strict=True):
                if isinstance(outcome, DataError):
                    report.fault("images", outcome)
                    usable[place] = False
                else:
                    for note in outcome:
                        report.note(note, image_ids[place])
    return usable
