"""How often each class is taken for each, counted exactly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ..structures import IGNORE


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix:
    """Pixels by true class (rows) and predicted class (columns); the last column is of those without a prediction.

    Counts are whole numbers, so that a sum over images, or over processes, is the same in any order.
    """

    counts: Int64[ndarray, "k k1"]

    @classmethod
    def empty(cls, num_classes: int) -> "ConfusionMatrix":
        """Of no pixel."""
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    @classmethod
    def of(cls, truth: UInt8[ndarray, "h w"], predicted: UInt8[ndarray, "h w"], num_classes: int) -> "ConfusionMatrix":
        """Of one map. 255 is no class: in the truth the pixel is left out, in the prediction it has none."""
        known = truth != IGNORE
        rows, found = truth[known].astype(np.int64), predicted[known].astype(np.int64)
        if (rows >= num_classes).any() or ((found >= num_classes) & (found != IGNORE)).any():
            raise ValueError(f"a map of {num_classes} classes holds 0..{num_classes - 1} and {IGNORE}")
        columns = np.where(found == IGNORE, num_classes, found)
        size = num_classes * (num_classes + 1)
        return cls(np.bincount(rows * (num_classes + 1) + columns, minlength=size).reshape(num_classes, -1))

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def hits(self) -> Int64[ndarray, " k"]:
        """Pixels of each class that are predicted to be of it."""
        return self.counts.diagonal()

    @property
    def truths(self) -> Int64[ndarray, " k"]:
        """Pixels that are of each class."""
        return self.counts.sum(axis=1)

    @property
    def unions(self) -> Int64[ndarray, " k"]:
        """Pixels that are of each class, or predicted to be."""
        return self.truths + self.counts[:, :-1].sum(axis=0) - self.hits
