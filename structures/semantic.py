"""Predictions of semantic segmentation: class logits for every pixel."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

IGNORE = 255
"""The value of a semantic map where the class is unknown; these pixels count neither in the loss nor in the metric."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class LogitWindow:
    """The class logits of one window of an image, at the resolution at which the head computed them."""

    grid: Float[Tensor, "k _ _"]
    padded_size: tuple[int, int]
    """(height, width) in pixels of the area under the grid: the window and its padding at the bottom and right."""
    size: tuple[int, int]
    """(height, width) of the window in pixels."""
    corner: tuple[int, int] = (0, 0)
    """(top, left) of the window in the image that the model saw, in pixels."""
    align_corners: bool = False
    """How the grid is resized to its area; see ``torch.nn.functional.interpolate``."""

    def __post_init__(self) -> None:
        if self.grid.ndim != 3:
            raise ValueError(f"logits must have shape (classes, height, width), got {tuple(self.grid.shape)}")


@dataclass(frozen=True, slots=True, eq=False)
class SemanticLogits:
    """The class logits of one image, at the resolution at which the head computed them.

    :func:`vertebra.ops.label_map` turns them into a class map of any size, :func:`vertebra.ops.full_size_logits` into
    logits of every pixel.
    """

    windows: tuple[LogitWindow, ...]
    """Windows that together cover the frame; overlapping logits are averaged."""
    frame: tuple[int, int]
    """(height, width) of the image as the model saw it."""
    size: tuple[int, int]
    """(height, width) of the original image, to which the logits of the frame are resized."""

    @classmethod
    def from_grid(
        cls,
        grid: Float[Tensor, "k _ _"],
        padded_size: tuple[int, int],
        size: tuple[int, int],
        align_corners: bool = False,
    ) -> "SemanticLogits":
        """Return the logits of an image of ``size`` that the model processed as one window of ``padded_size``."""
        return cls((LogitWindow(grid, padded_size, size, align_corners=align_corners),), size, size)

    @classmethod
    def from_pixels(cls, logits: Float[Tensor, "k h w"]) -> "SemanticLogits":
        """Return the prediction whose logits have the resolution of the image."""
        size = (logits.shape[1], logits.shape[2])
        return cls.from_grid(logits, size, size)

    @property
    def num_classes(self) -> int:
        return len(self.windows[0].grid)

    def to(self, device: torch.device | str) -> "SemanticLogits":
        """Move every tensor to ``device``."""
        return replace(self, windows=tuple(replace(window, grid=window.grid.to(device)) for window in self.windows))
