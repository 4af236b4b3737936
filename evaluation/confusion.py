"""The confusion matrix of semantic segmentation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ..structures import IGNORE

_VALUES = 256
"""The number of values that a pixel of a label map can have."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix:
    """Pixel counts by true class (rows) and predicted class (columns); the last column counts unpredicted pixels.

    Counts are integers, so that sums over images do not depend on their order.
    """

    counts: Int64[ndarray, "k k1"]

    @classmethod
    def empty(cls, num_classes: int) -> "ConfusionMatrix":
        """Return a matrix of zeros."""
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    @classmethod
    def of(
        cls, ground_truth: UInt8[ndarray, "h w"], predicted: UInt8[ndarray, "h w"], num_classes: int
    ) -> "ConfusionMatrix":
        """Count the pixels of one image.

        Pixels that are 255 in the ground truth are ignored; 255 in the prediction counts as unpredicted. Raises
        ValueError for any other value that is not a class.
        """
        codes = (ground_truth.astype(np.uint16) << 8) | predicted
        pairs = np.bincount(codes.ravel(), minlength=_VALUES**2).reshape(_VALUES, _VALUES)
        if pairs[num_classes:IGNORE].any() or pairs[:num_classes, num_classes:IGNORE].any():
            raise ValueError(f"a label map with {num_classes} classes may only hold 0..{num_classes - 1} and {IGNORE}")
        known = pairs[:num_classes]
        return cls(np.concatenate([known[:, :num_classes], known[:, IGNORE:]], axis=1))

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def hits(self) -> Int64[ndarray, " k"]:
        """The number of correctly predicted pixels of each class."""
        return self.counts.diagonal()

    @property
    def true_pixels(self) -> Int64[ndarray, " k"]:
        """The number of ground-truth pixels of each class."""
        return self.counts.sum(axis=1)

    @property
    def unions(self) -> Int64[ndarray, " k"]:
        """The number of pixels of each class in the union of ground truth and prediction."""
        return self.true_pixels + self.counts[:, :-1].sum(axis=0) - self.hits
