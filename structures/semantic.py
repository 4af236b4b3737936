"""A class for every pixel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

IGNORE = 255
"""What a semantic map holds where nobody says what is there; it is neither learned nor scored."""


@dataclass(frozen=True, slots=True, eq=False)
class SemanticLogits:
    """Logits of every pixel of one image, in the frame of the image that the head was given.

    :func:`vertebra.ops.label_map` makes a map of classes of them, at any size.
    """

    logits: Float[Tensor, "k h w"]

    def to(self, device: torch.device | str) -> "SemanticLogits":
        """The same on another device."""
        return SemanticLogits(self.logits.to(device))
