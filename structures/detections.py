"""The predictions of a detector for one image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .field_table import require_one_per_box
from .masks import RoIMasks, RowIndex, as_row_index


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class Detections:
    """The detections of one image, best first, in pixels of the image that the head received.

    Indexing always returns Detections: ``detections[0]`` is the best detection (length 1); ``detections[:10]``,
    ``detections[detections.scores > 0.5]`` and ``detections[torch.tensor([2, 0])]`` select subsets. Iteration yields
    one detection at a time.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    scores: Float[Tensor, " n"]
    masks: RoIMasks | None = None
    keypoints: Float[Tensor, "n k 3"] | None = None
    """(x, y, score) of each keypoint of each detection."""

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must have shape (n, 4), got {tuple(self.boxes.shape)}")
        for what, values in (("label", self.labels), ("score", self.scores)):
            if values.ndim != 1:
                raise ValueError(f"{what}s must have shape (n,), got {tuple(values.shape)}")
        for what, values in (
            ("label", self.labels),
            ("score", self.scores),
            ("mask", self.masks),
            ("skeleton", self.keypoints),
        ):
            if values is not None:
                require_one_per_box(what, values, len(self.boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: RowIndex) -> "Detections":
        rows = as_row_index(index, len(self))
        return self._map(lambda values: values[rows])

    def __iter__(self) -> Iterator["Detections"]:
        return (self[row] for row in range(len(self)))

    def to(self, device: torch.device | str) -> "Detections":
        """Return the detections with every tensor on ``device``."""
        return self._map(lambda values: values.to(device))

    def relabel(self, new_labels: Int64[Tensor, " k"]) -> "Detections":
        """Return the detections with label ``new_labels[i]`` in place of ``i``, without those whose new label is -1."""
        labels = new_labels.to(self.labels.device)[self.labels]
        return replace(self[labels >= 0], labels=labels[labels >= 0])

    def to_original(self, size: tuple[int, int], original_size: tuple[int, int]) -> "Detections":
        """Rescale the detections from an image resized to ``size`` to its ``original_size``, both (height, width).

        Boxes are clipped to the original image, and the masks get its size. Keypoints are not clipped.
        """
        (height, width), (original_height, original_width) = size, original_size
        scale = self.boxes.new_tensor([original_width / width, original_height / height] * 2)
        limit = self.boxes.new_tensor([original_width, original_height] * 2)
        changes: dict[str, Any] = {"boxes": torch.minimum((self.boxes * scale).clamp(min=0), limit)}
        if self.masks is not None:
            changes["masks"] = replace(self.masks, size=original_size)
        if self.keypoints is not None:
            changes["keypoints"] = self.keypoints * torch.cat([scale[:2], scale.new_ones(1)])
        return replace(self, **changes)

    def shift(self, corner: tuple[int, int], size: tuple[int, int]) -> "Detections":
        """Move the detections of a part of an image, whose ``corner`` is (left, top), into the image.

        ``size`` is the (height, width) of the image.
        """
        offset = self.boxes.new_tensor(corner)
        changes: dict[str, Any] = {"boxes": self.boxes + offset.repeat(2)}
        if self.masks is not None:
            changes["masks"] = replace(self.masks, size=size)
        if self.keypoints is not None:
            changes["keypoints"] = self.keypoints + torch.cat([offset, offset.new_zeros(1)])
        return replace(self, **changes)

    @classmethod
    def concatenate(cls, parts: Sequence["Detections"]) -> "Detections":
        """Return the detections of all parts, of which there must be at least one, with the same fields."""
        first, changes = parts[0], {}
        for name in ("boxes", "labels", "scores", "keypoints"):
            if getattr(first, name) is not None:
                changes[name] = torch.cat([getattr(part, name) for part in parts])
        if first.masks is not None:
            grids = torch.cat([part.masks.grids for part in parts if part.masks is not None])
            changes["masks"] = replace(first.masks, grids=grids)
        return replace(first, **changes)

    def _map(self, change: Callable[[Any], Any]) -> "Detections":
        """Return the detections with ``change`` applied to every field that has a value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})
