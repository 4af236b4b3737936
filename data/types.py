"""One image on its way to the model: as the file has it, as the model sees it, and many of them together."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import Images, Instances
from .polygons import PolygonMask

Truth = Instances | Int64[Tensor, ""] | Int64[Tensor, "h w"]
"""What a head learns of one image: its objects, the label of the whole image, or one for every pixel."""
Target = Truth | dict[str, Truth]
"""Where an image has several kinds of truth, they come by task."""

FILL = (124, 116, 104)
"""What a transform or a mix has where no image is: ImageNet's mean colour (RGB), near zero once it is normalised."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of an image, in the pixels of the record's image; ``ignored`` are regions that are neither object nor
    background."""

    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    ignored: Float32[ndarray, "m 4"]
    masks: UInt8[ndarray, "n h w"] | None = None
    """1 on the object and 0 elsewhere; None where the data set has boxes or outlines only."""
    polygon_masks: tuple[PolygonMask, ...] | None = None
    """The masks in the other form."""

    def __post_init__(self) -> None:
        for name, each in (("label", self.labels), ("mask", self.masks)):
            if each is not None and len(each) != len(self.boxes):
                raise ValueError(f"one {name} per box is needed, got {len(self.boxes)} boxes and {len(each)} {name}s")
        if self.masks is not None and (highest := self.masks.max(initial=0)) > 1:
            raise ValueError(f"masks are 1 on the object and 0 elsewhere, got {highest}; compare them with > 0")

    def __getitem__(self, which: Int64[ndarray, " k"]) -> "Objects":
        """Some of them, by number; all that is ignored stays."""
        masks = None if self.masks is None else self.masks[which]
        polygon_masks = (
            None if self.polygon_masks is None else tuple(self.polygon_masks[each] for each in which.tolist())
        )
        return Objects(self.boxes[which], self.labels[which], self.ignored, masks, polygon_masks)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An image (RGB) and what is known of it."""

    image: UInt8[ndarray, "h w 3"]
    objects: Objects | None = None
    label: int | None = None
    """The class of the whole image."""
    semantic: UInt8[ndarray, "_ _"] | None = None
    """The class of every pixel; 255 where none is known. As large as the image, but where that is decoded smaller and
    :meth:`Dataset.read` has yet to bring the two together."""
    image_id: int | str = 0
    file: str = ""
    original_size: tuple[int, int] | None = None
    """(height, width) in the file, where the image was decoded smaller or is transformed; None where it is the same."""

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) in the file."""
        return self.original_size or (self.image.shape[0], self.image.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A transformed image and its target in the resized frame; None where nothing is known of the image."""

    image: UInt8[Tensor, "3 h w"]
    target: Target | None
    image_id: int | str
    original_size: tuple[int, int]  # height, width
    file: str

    def __post_init__(self) -> None:
        for truth in self.target.values() if isinstance(self.target, dict) else [self.target]:
            maps = truth.masks if isinstance(truth, Instances) else truth
            if maps is not None and maps.ndim > 1 and maps.shape[-2:] != self.image.shape[1:]:
                raise ValueError(
                    f"image {self.image_id} is (height, width) {tuple(self.image.shape[1:])}, its masks are "
                    f"{tuple(maps.shape[-2:])}: each needs a value for every pixel"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples padded into one tensor; sizes are (height, width)."""

    images: Images
    targets: tuple[Target | None, ...]
    image_ids: tuple[int | str, ...]
    original_sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return self._map(lambda part: part.to(device))

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory; the data loader calls this."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable) -> "Batch":
        def change_target(target: Target | None) -> Target | None:
            if isinstance(target, dict):
                return {task: change(truth) for task, truth in target.items()}
            return None if target is None else change(target)

        return Batch(change(self.images), tuple(map(change_target, self.targets)), self.image_ids, self.original_sizes)


def collate(samples: list[Sample], divisor: int) -> Batch:
    """Pad samples to the largest among them, rounded up to a multiple of ``divisor`` pixels."""
    return Batch(
        Images.from_list([sample.image for sample in samples], divisor),
        tuple(sample.target for sample in samples),
        tuple(sample.image_id for sample in samples),
        tuple(sample.original_size for sample in samples),
    )
