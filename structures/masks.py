"""Predicted masks on the grids of a head, before they are pasted into the image."""

import operator
from dataclasses import dataclass, replace
from typing import Literal, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

MaskFormat = Literal["bitmaps", "polygons"]
"""The form in which a head receives ground-truth masks: bitmaps of the resized image, or polygons."""

PasteRule = Literal["centers", "padded"]
"""How a mask is pasted into the image. ``centers``: its probabilities are sampled at the pixel centers inside the
unchanged box (detectron2). ``padded``: the grid gets a border of zeros; the box grows by that border and is truncated
to whole pixels, both ends included (torchvision)."""

RowIndex = SupportsIndex | slice | list[int] | list[bool] | Tensor
"""An index of rows: an int, a slice, a list or tensor of ints, or a list or tensor with one bool per row."""

_INDEX_TYPES = (torch.bool, torch.int32, torch.int64)
_ACCEPTED = "rows are selected by an int, a slice, a list, or a 1-D tensor of ints or bools"


@dataclass(frozen=True, slots=True, eq=False)
class RoIMasks:
    """The predicted mask of each object, as probabilities on a grid over its box.

    :func:`vertebra.ops.paste_masks` pastes them into the image. Indexing selects rows, as in ``Detections``.
    """

    grids: Float[Tensor, "n s s"]
    size: tuple[int, int]
    """(height, width) of the image that the boxes are in."""
    rule: PasteRule = "centers"

    def __post_init__(self) -> None:
        if self.grids.ndim != 3:
            raise ValueError(f"grids must have shape (n, size, size), got {tuple(self.grids.shape)}")

    def __len__(self) -> int:
        return len(self.grids)

    def __getitem__(self, index: RowIndex) -> "RoIMasks":
        return replace(self, grids=self.grids[as_row_index(index, len(self))])

    def to(self, device: torch.device | str) -> "RoIMasks":
        """Return the masks with their grids on ``device``."""
        return replace(self, grids=self.grids.to(device))


def as_row_index(index: RowIndex, count: int) -> slice | Tensor:
    """Return an index that keeps the row axis: an int becomes a slice of length 1.

    Raises IndexError for an int that is out of range for ``count`` rows, and TypeError for an index that does not
    select rows, such as a tuple.
    """
    if isinstance(index, slice):
        return index
    if isinstance(index, list):
        index = torch.tensor(index) if index else torch.zeros(0, dtype=torch.int64)
    if isinstance(index, Tensor) and index.ndim:
        if index.ndim > 1 or index.dtype not in _INDEX_TYPES:
            raise TypeError(f"{_ACCEPTED}; got a tensor of {index.dtype}, shape {tuple(index.shape)}")
        return index
    try:
        row = operator.index(index)
    except TypeError:
        raise TypeError(f"{_ACCEPTED}; got {index!r}") from None
    if not -count <= row < count:
        raise IndexError(f"there is no row {row} among {count}")
    return slice(row % count, row % count + 1)
