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
        """Return the matrix of no pixels."""
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    @classmethod
    def of(
        cls, ground_truth: UInt8[ndarray, "h w"], predicted: UInt8[ndarray, "h w"], num_classes: int
    ) -> "ConfusionMatrix":
        """Count the pixels of one image. 255 is no class: in the ground truth the pixel is left out, in the prediction
        it counts as one without a class."""
        known = ground_truth != IGNORE
        rows, labels = ground_truth[known].astype(np.int64), predicted[known].astype(np.int64)
        if (rows >= num_classes).any() or ((labels >= num_classes) & (labels != IGNORE)).any():
            raise ValueError(f"a map of {num_classes} classes holds 0..{num_classes - 1} and {IGNORE}")
        columns = np.where(labels == IGNORE, num_classes, labels)
        size = num_classes * (num_classes + 1)
        return cls(np.bincount(rows * (num_classes + 1) + columns, minlength=size).reshape(num_classes, -1))

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def hits(self) -> Int64[ndarray, " k"]:
        """The pixels of each class that are predicted to be of it."""
        return self.counts.diagonal()

    @property
    def true_pixels(self) -> Int64[ndarray, " k"]:
        """The pixels that are of each class."""
        return self.counts.sum(axis=1)

    @property
    def unions(self) -> Int64[ndarray, " k"]:
        """The pixels that are of each class, or predicted to be."""
        return self.true_pixels + self.counts[:, :-1].sum(axis=0) - self.hits
