"""What is in an image: the truth to learn from, and what a detector found."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .masks import RoIMasks
from .polygons import PolygonMasks


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: tensors have no single truth value
class Instances:
    """Ground truth of one image, in its resized frame.

    ``ignored`` are regions that are neither object nor background: COCO's crowds, VOC's difficult objects.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n h w"] | None = None
    ignored: Float[Tensor, "m 4"] | None = None
    polygon_masks: PolygonMasks | None = None
    """The masks as they were drawn, for who wants them more exact than pixels are."""

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must have shape (n, 4), got {tuple(self.boxes.shape)}")
        if len(self.labels) != len(self.boxes):
            raise ValueError(f"one label per box is needed, got {len(self.boxes)} boxes and {len(self.labels)} labels")
        for kind, given in (("mask", self.masks), ("outline", self.polygon_masks)):
            if given is not None and len(given) != len(self.boxes):
                raise ValueError(f"one {kind} per box is needed, got {len(self.boxes)} boxes and {len(given)} {kind}s")
        if self.masks is not None and self.masks.dtype != torch.bool:
            raise ValueError(f"masks are true or false (torch.bool), got {self.masks.dtype}; compare them with > 0")

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: torch.device | str) -> "Instances":
        """The same on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Instances":
        """The same in page-locked memory, for an asynchronous copy to a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Instances":
        masks, ignored = (None if tensor is None else change(tensor) for tensor in (self.masks, self.ignored))
        polygon_masks = None if self.polygon_masks is None else self.polygon_masks.map(change)
        return Instances(change(self.boxes), change(self.labels), masks, ignored, polygon_masks)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a head found in one image, best first, in the frame of the image it was given."""

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    scores: Float[Tensor, " n"]
    masks: RoIMasks | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: slice | Bool[Tensor, " n"]) -> "Detections":
        masks = None if self.masks is None else self.masks[which]
        return Detections(self.boxes[which], self.labels[which], self.scores[which], masks)

    def to(self, device: torch.device | str) -> "Detections":
        """The same on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Detections(self.boxes.to(device), self.labels.to(device), self.scores.to(device), masks)

    def rescale(self, size: tuple[int, int], original: tuple[int, int]) -> "Detections":
        """Boxes carried from a resized ``(height, width)`` to the original one and clipped to it; masks follow them."""
        (height, width), (original_height, original_width) = size, original
        scale = self.boxes.new_tensor([original_width / width, original_height / height] * 2)
        limit = self.boxes.new_tensor([original_width, original_height] * 2)
        boxes = torch.minimum((self.boxes * scale).clamp(min=0), limit)
        return replace(self, boxes=boxes, masks=None if self.masks is None else replace(self.masks, size=original))
