"""A batch of images of different sizes in one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

MAX_PIXELS = 500_000_000
"""The maximum number of pixels of an image, in a file or as an annotation file declares it (1.5 GB decoded)."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A batch of images 0..255, zero-padded at the bottom and right; ``sizes`` are the unpadded (height, width)."""

    pixels: UInt8[Tensor, "b c h w"]
    sizes: Int64[Tensor, "b 2"]
    sizes_on_host: tuple[tuple[int, int], ...] | None = None
    """``sizes`` as Python numbers, so that they need not be read from a GPU; None if they are unknown."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise ValueError(
                "Images hold uint8 pixels 0..255 of shape (batch, channels, height, width); "
                f"got {self.pixels.dtype} of shape {tuple(self.pixels.shape)}"
            )
        if tuple(self.sizes.shape) != (len(self.pixels), 2):
            raise ValueError(
                f"sizes need a (height, width) for each of the {len(self.pixels)} images; "
                f"got shape {tuple(self.sizes.shape)}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def padded_size(self) -> tuple[int, int]:
        """The (height, width) of the batch, which the smaller images are padded to."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def size_list(self) -> list[tuple[int, int]]:
        """Return the (height, width) of each image; if ``sizes_on_host`` is None, this waits for a GPU."""
        if self.sizes_on_host is not None:
            return list(self.sizes_on_host)
        return [(height, width) for height, width in self.sizes.tolist()]

    @classmethod
    def from_list(cls, images: Sequence[UInt8[Tensor, "_ _ _"]], divisor: int = 32) -> "Images":
        """Pad and stack images (c h w).

        The height and width of the batch are the largest among the images, rounded up to a multiple of ``divisor``.
        Raises ValueError if the list is empty, or an image is not uint8 or has another number of channels.
        """
        _require_batchable(images)
        height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor for axis in (1, 2))
        pixels = images[0].new_zeros(len(images), images[0].shape[0], height, width)
        for row, image in zip(pixels, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        return cls(pixels, torch.tensor(sizes, device=pixels.device), sizes)

    def to(self, device: torch.device | str) -> "Images":
        """Return the batch with its tensors on ``device``."""
        sizes = self.sizes_on_host
        if sizes is None and self.sizes.device.type == "cpu":
            sizes = tuple(self.size_list())
        return Images(self.pixels.to(device, non_blocking=True), self.sizes.to(device, non_blocking=True), sizes)

    def pin_memory(self) -> "Images":
        """Return a copy of the batch in pinned memory, from which copies to a GPU can be asynchronous."""
        return Images(self.pixels.pin_memory(), self.sizes.pin_memory(), self.sizes_on_host)


def _require_batchable(images: Sequence[Tensor]) -> None:
    """Raise ValueError if there is no image, an image is not uint8 c h w, or the channel counts differ."""
    if not images:
        raise ValueError("Images.from_list needs at least one image")
    for image in images:
        if image.dtype != torch.uint8 or image.ndim != 3:
            raise ValueError(
                "an image is uint8 0..255 of shape (channels, height, width); "
                f"got {image.dtype} of shape {tuple(image.shape)}"
            )
    if len({image.shape[0] for image in images}) > 1:
        shapes = ", ".join(str(tuple(image.shape)) for image in images)
        raise ValueError(
            f"the images of a batch need the same number of channels, got shapes {shapes}; convert a gray image to RGB "
            "with image.expand(3, -1, -1)"
        )
