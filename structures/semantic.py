"""Semantic maps: a class for every pixel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

IGNORE = 255
"""The value of a semantic map where no class is known; such a pixel is neither learned nor scored."""


@dataclass(frozen=True, slots=True, eq=False)
class SemanticLogits:
    """The logits of every pixel of one image, in the frame of the image that the head was given.

    :func:`vertebra.ops.label_map` turns them into a map of classes, at any size.
    """

    logits: Float[Tensor, "k h w"]

    def __post_init__(self) -> None:
        if self.logits.ndim != 3:
            raise ValueError(f"logits must have shape (classes, height, width), got {tuple(self.logits.shape)}")

    def to(self, device: torch.device | str) -> "SemanticLogits":
        """Return the logits on ``device``."""
        return SemanticLogits(self.logits.to(device))
