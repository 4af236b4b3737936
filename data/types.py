"""One image on its way to the model: as the file has it, as the model sees it, and many of them together."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import Images, Instances
from .objects import Objects

Truth = Instances | Int64[Tensor, ""] | Int64[Tensor, "h w"]
"""The ground truth of one image for one task: its objects, the label of the whole image, or a label for every pixel."""
Target = Truth | dict[str, Truth]
"""What heads learn of one image; where it has the ground truth of several tasks, by task."""

FILL = (124, 116, 104)
"""What a transform or a mix has where no image is: ImageNet's mean colour (RGB), near zero once it is normalised."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An image (RGB) and its ground truth."""

    image: UInt8[ndarray, "h w 3"]
    objects: Objects | None = None
    label: int | None = None
    """The class of the whole image."""
    semantic: UInt8[ndarray, "_ _"] | None = None
    """The class of every pixel; 255 where none is known. As large as the image, except where the image was decoded
    smaller and :meth:`Dataset.read` has yet to bring the two together."""
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
    """A transformed image and its target in the resized frame; None where nothing is known of the image.

    ValueError for ground truth that cannot be that of an image of this size: boxes outside it, masks or maps of another
    size.
    """

    image: UInt8[Tensor, "3 h w"]
    target: Target | None
    image_id: int | str
    original_size: tuple[int, int]  # height, width
    file: str

    def __post_init__(self) -> None:
        size = self.image.shape[1], self.image.shape[2]
        for truth in self.target.values() if isinstance(self.target, dict) else [self.target]:
            try:
                if isinstance(truth, Instances):
                    truth.require_size(size)
                elif truth is not None and truth.ndim > 1 and tuple(truth.shape) != size:
                    raise ValueError(
                        f"the image is (height, width) {size}, its semantic map is {tuple(truth.shape)}: "
                        "it needs a value for every pixel"
                    )
            except ValueError as error:
                raise ValueError(f"image {self.image_id}: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples padded into one tensor; sizes are (height, width)."""

    images: Images
    targets: tuple[Target | None, ...]
    image_ids: tuple[int | str, ...]
    original_sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with every tensor on ``device``."""
        return self._map(lambda part: part.to(device))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; torch's data loader calls this."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable) -> "Batch":
        def change_target(target: Target | None) -> Target | None:
            if isinstance(target, dict):
                return {task: change(truth) for task, truth in target.items()}
            return None if target is None else change(target)

        return Batch(change(self.images), tuple(map(change_target, self.targets)), self.image_ids, self.original_sizes)


def collate(samples: list[Sample], divisor: int) -> Batch:
    """Pad samples to the largest height and width among them, rounded up to a multiple of ``divisor`` pixels."""
    return Batch(
        Images.from_list([sample.image for sample in samples], divisor),
        tuple(sample.target for sample in samples),
        tuple(sample.image_id for sample in samples),
        tuple(sample.original_size for sample in samples),
    )
