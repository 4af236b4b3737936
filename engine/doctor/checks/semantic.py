"""Checks of class maps: which values occur, and how much is ignored."""

from collections.abc import Iterable

import numpy as np

from ....ops import join_first
from ....structures import IGNORE
from ..findings import Finding
from ..splits import ExaminedData
from .images import Facts

MUCH_IGNORED = 0.2
"""Above this fraction, ignored pixels are mentioned; on VOC, borders and difficult objects are 5 %."""
IMBALANCE = 1000
"""The ratio of the pixels of the most and the least frequent class from which the balance is mentioned."""


def check_class_maps(data: ExaminedData, facts: Facts) -> Iterable[Finding]:
    """Find classes that never occur, foreground that is hidden behind 255, and a large imbalance."""
    pixels = {}
    for split in data.splits:
        counts = [fact.pixels_by_class for fact in facts[split.name] if fact.pixels_by_class is not None]
        if counts:
            pixels[split.name] = np.sum(counts, axis=0)
    for split in data.splits:
        if split.name not in pixels:
            continue
        counted, names = pixels[split.name], split.class_names
        ignored = counted[IGNORE] / max(counted.sum(), 1)
        absent = [label for label in range(len(names)) if not counted[label]]
        is_binary = np.count_nonzero(counted[:IGNORE]) == 1 and counted[0] > 0
        if is_binary and ignored:
            yield Finding(
                "hidden-foreground", "error", split.name,
                f"{IGNORE} is {ignored:.0%} of the pixels, class 1 never occurs: {IGNORE} is ignored, so the "
                "foreground is not learned", f"write 1 in place of {IGNORE} if it is the foreground",
                examples=tuple(split.image_example(index) for index in range(min(3, len(split.dataset)))),
            )  # fmt: skip
        elif ignored > MUCH_IGNORED:
            yield Finding(
                "much-ignored", "note", split.name, f"{ignored:.0%} of the pixels are {IGNORE}, which is ignored",
                "check that it is no class",
            )  # fmt: skip
        if absent and not is_binary:
            listed = join_first([names[label] for label in absent], separator=", ")
            yield Finding(
                "class-without-pixels", "warning" if split.name == "train" else "note", split.name,
                f"classes have no pixel: {listed}", "leave them out, or add images of them", len(absent), len(names),
            )  # fmt: skip
        seen = np.flatnonzero(counted[: len(names)])
        ratio = counted[seen].max() / counted[seen].min() if len(seen) else 1
        if ratio > IMBALANCE:
            yield Finding(
                "pixel-imbalance", "note", split.name,
                f"{names[seen[counted[seen].argmax()]]} has {ratio:.0f} times the pixels of "
                f"{names[seen[counted[seen].argmin()]]}", "weight the classes, or crop around rare ones",
            )  # fmt: skip
