"""Masks on their way from a head to an image."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MaskFormat = Literal["bitmaps", "polygons"]
"""How true masks come to a head: as pixels of the resized image, or as their outlines."""

PasteRule = Literal["centers", "padded"]
"""``centers``: probabilities are read at pixel centres, on the box as it is (detectron2). ``padded``: the grid gets a
border of zeros, the box grows by it, is cut to whole pixels and spans from its first to its last (torchvision)."""


@dataclass(frozen=True, slots=True, eq=False)
class RoIMasks:
    """Probabilities on a grid over the box of each object: :func:`vertebra.ops.paste_masks` puts them on the image."""

    grids: Float[Tensor, "n s s"]
    size: tuple[int, int]  # height, width of the image that the boxes are in
    rule: PasteRule = "centers"

    def __len__(self) -> int:
        return len(self.grids)

    def __getitem__(self, which: slice | Bool[Tensor, " n"]) -> "RoIMasks":
        return replace(self, grids=self.grids[which])

    def to(self, device: torch.device | str) -> "RoIMasks":
        """The same on another device."""
        return replace(self, grids=self.grids.to(device))
