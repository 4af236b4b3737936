"""The rule for how often images are drawn."""

from collections.abc import Iterable

import numpy as np

from ...config import ExperimentConfig
from ..choices import Choice
from ..facts import DataFacts

LOPSIDED = 20
"""Classes are lopsided if the rarest is on this many times fewer images than the median class."""


def repeat_rare_classes(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Sample images of rare classes more often if the classes are lopsided (LVIS's repeat factors, 1908.03195).

    In samples of BCCD, VOC2012 and COCO the rarest class is on half as many images as the median class, and nothing is
    repeated.
    """
    counts = sorted((count, name) for name, count in facts.images_by_class.items() if count)
    if len(counts) < 2:
        return
    rarest, name = counts[0]
    median = median_count(facts)
    images = "repeat_factor" if rarest * LOPSIDED <= median else config.train.sampling.images
    reason = f"the rarest class, {name}, is on {rarest} images, the median class on {median:g}"
    yield Choice("train.sampling.images", images, reason)


def choose_repeat_threshold(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the frequency below which classes are repeated: half that of the median class.

    A class on a fraction ``f`` of the images is repeated by the square root of ``threshold / f``.
    """
    if config.train.sampling.images == "repeat_factor" and facts.images_by_class:
        threshold = round(median_count(facts) / facts.train_images / 2, 6)
        yield Choice("train.sampling.repeat_below", threshold, "it is half the frequency of the median class")


def median_count(facts: DataFacts) -> float:
    """Return the number of images of the median class, of the classes that occur."""
    return float(np.median([count for count in facts.images_by_class.values() if count]))
