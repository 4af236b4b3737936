"""The types of the data pipeline: records (decoded images), samples (transformed images) and batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import Images, Instances
from .objects import Objects

Truth = Instances | Int64[Tensor, ""] | Int64[Tensor, "h w"]
"""The ground truth of one image for one task: its objects, the label of the image, or a label for every pixel."""
Target = Truth | dict[str, Truth]
"""The ground truth of one image; a dict by task if there are several tasks."""

FILL = (124, 116, 104)
"""The RGB color of padding in transforms and mixes: ImageNet's mean color, which is close to zero when normalized."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A decoded RGB image and its annotations."""

    image: UInt8[ndarray, "h w 3"]
    objects: Objects | None = None
    label: int | None = None
    """The class of the image."""
    semantic: UInt8[ndarray, "_ _"] | None = None
    """The class of every pixel; 255 is ignored. It has the size of the image, except if the image was decoded at a
    reduced size and :meth:`Dataset.read` has not resized the map yet."""
    image_id: int | str = 0
    file: str = ""
    original_size: tuple[int, int] | None = None
    """(height, width) of the upright image in the file, if the image was resized; None if it has its original size."""

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of the upright image in the file."""
        return self.original_size or (self.image.shape[0], self.image.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A transformed image and its target, in pixels of the transformed image.

    The constructor raises ValueError if the target does not fit the image: boxes outside it, or masks or a semantic map
    of another size.
    """

    image: UInt8[Tensor, "3 h w"]
    target: Target | None
    """None if the image has no annotations."""
    image_id: int | str
    original_size: tuple[int, int]
    """(height, width) of the upright image in the file."""
    file: str

    def __post_init__(self) -> None:
        size = self.image.shape[1], self.image.shape[2]
        for truth in self.target.values() if isinstance(self.target, dict) else [self.target]:
            try:
                if isinstance(truth, Instances):
                    truth.require_size(size)
                elif truth is not None and truth.ndim > 1 and tuple(truth.shape) != size:
                    raise ValueError(
                        f"the image has the (height, width) {size}, its semantic map {tuple(truth.shape)}: "
                        "the map needs a value for every pixel"
                    )
            except ValueError as error:
                raise ValueError(f"image {self.image_id}: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A batch of samples, with the images padded into one tensor; sizes are (height, width)."""

    images: Images
    targets: tuple[Target | None, ...]
    image_ids: tuple[int | str, ...]
    original_sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with every tensor on ``device``."""
        return self._map(lambda part: part.to(device))

    def pin_memory(self) -> "Batch":
        """Return a copy of the batch in pinned memory; torch's DataLoader calls this."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable) -> "Batch":
        def change_target(target: Target | None) -> Target | None:
            if isinstance(target, dict):
                return {task: change(truth) for task, truth in target.items()}
            return None if target is None else change(target)

        return Batch(change(self.images), tuple(map(change_target, self.targets)), self.image_ids, self.original_sizes)


def collate(samples: list[Sample], divisor: int) -> Batch:
    """Collate samples to a batch; images are padded to the largest height and width, rounded up to a multiple of
    ``divisor`` pixels."""
    return Batch(
        Images.from_list([sample.image for sample in samples], divisor),
        tuple(sample.target for sample in samples),
        tuple(sample.image_id for sample in samples),
        tuple(sample.original_size for sample in samples),
    )
