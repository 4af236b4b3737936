"""One image on its way to the model: as the file has it, as the model sees it, and many of them together."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import Images, Instances


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An image (RGB) with its objects, in original pixels."""

    image: UInt8[ndarray, "h w 3"]
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    ignored: Float32[ndarray, "m 4"]
    image_id: int | str = 0
    file: str = ""

    @classmethod
    def unlabelled(cls, image: UInt8[ndarray, "h w 3"]) -> "Record":
        """An image of which nothing is known."""
        nothing = np.zeros((0, 4), np.float32)
        return cls(image, nothing, np.zeros(0, np.int64), nothing)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A transformed image with its objects, in the resized frame."""

    image: UInt8[Tensor, "3 h w"]
    target: Instances
    image_id: int | str
    original_size: tuple[int, int]  # height, width
    file: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples padded into one tensor; sizes are (height, width)."""

    images: Images
    targets: tuple[Instances, ...]
    image_ids: tuple[int | str, ...]
    original_sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        targets = tuple(target.to(device) for target in self.targets)
        return Batch(self.images.to(device), targets, self.image_ids, self.original_sizes)

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory; the data loader calls this."""
        targets = tuple(target.pin_memory() for target in self.targets)
        return Batch(self.images.pin_memory(), targets, self.image_ids, self.original_sizes)


def collate(samples: list[Sample], divisor: int) -> Batch:
    """Pad samples to the largest among them, rounded up to a multiple of ``divisor`` pixels."""
    return Batch(
        Images.from_list([sample.image for sample in samples], divisor),
        tuple(sample.target for sample in samples),
        tuple(sample.image_id for sample in samples),
        tuple(sample.original_size for sample in samples),
    )
