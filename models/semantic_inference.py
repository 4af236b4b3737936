"""Prediction by windows, at several scales and mirrored: more time, and the activations of a few windows at once.

What grows with the image is its logits alone, a map for every class, held two or three times where there are views.
A window is predicted as an image of its own, and where windows overlap their logits are averaged. Scales and mirror
images are views of one image: each view's logits are resized to the image, and the views' softmax probabilities are
averaged. Both are mmseg's conventions (``slide_inference``, ``SegTTAModel``).
"""

import functools
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ..structures import Config, Images, SemanticLogits
from .model import Model


class SemanticInference(Config):
    """How an image is looked at. The default is ``Model.predict``."""

    window: PositiveInt | None = None
    """Side of the square windows in pixels; None: the whole image at once. A smaller image is one window."""
    stride: PositiveInt | None = None
    """From one window to the next; None: two thirds of a window. The last one ends with the image."""
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    """Of the image, which is resized bilinearly; windows keep their size."""
    flip: bool = False
    """Whether every scale is also seen mirrored, left to right."""
    batch_size: PositiveInt = 4
    """Windows that the model sees at once."""

    @model_validator(mode="after")
    def _check(self) -> "SemanticInference":
        if self.stride is not None and self.stride > (self.window or 0):
            raise ValueError(
                "windows leave no gap where a stride is at most one window; "
                f"got stride={self.stride} and window={self.window}"
            )
        return self

    @property
    def views(self) -> list[tuple[float, bool]]:
        """Scale and whether mirrored, of each view."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]


@torch.no_grad()
def predict_semantic(
    model: Model, images: Images, config: SemanticInference = SemanticInference()
) -> list[SemanticLogits]:
    """Logits of every pixel of each image, which are looked at one by one where the config is not the default.

    Of several views they are the logarithm of the averaged probability: their softmax is that average. Call ``eval()``
    first, as for any module.
    """
    if model.head.task != "semantic":
        raise ValueError(
            f"segment() is for models that predict a class for every pixel; this one's is {model.head.task}"
        )
    if config.window is None and config.views == [(1.0, False)]:
        return model.predict(images)
    return [
        SemanticLogits(_segment_one(model, pixels[:, :height, :width], config))
        for pixels, (height, width) in zip(images.pixels, images.sizes.tolist(), strict=True)
    ]


def _segment_one(model: Model, pixels: UInt8[Tensor, "c h w"], config: SemanticInference) -> Float[Tensor, "k h w"]:
    """One image, every view of it."""
    seen = (_look(model, pixels, scale, mirrored, config) for scale, mirrored in config.views)
    if len(config.views) == 1:
        return next(seen)
    total = functools.reduce(torch.Tensor.add_, (logits.softmax(dim=0) for logits in seen))
    return total.div_(len(config.views)).clamp_(min=torch.finfo(total.dtype).tiny).log_()


def _look(
    model: Model, pixels: UInt8[Tensor, "c h w"], scale: float, mirrored: bool, config: SemanticInference
) -> Float[Tensor, "k h w"]:
    """One view of an image, its logits brought back to the image."""
    view = pixels.flip(-1) if mirrored else pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[-2:]]
    logits = _slide(model, _resize(view.float(), size).round().to(torch.uint8), config)
    return _resize(logits.flip(-1) if mirrored else logits, pixels.shape[-2:])


def _slide(model: Model, pixels: UInt8[Tensor, "c h w"], config: SemanticInference) -> Float[Tensor, "k h w"]:
    """The logits of windows, averaged where they overlap; a few windows are in memory at once."""
    height, width = pixels.shape[-2:]
    corners = _corners((height, width), config)
    window = config.window or max(height, width)
    total: Tensor | None = None
    count = torch.zeros(height, width, device=pixels.device)
    for first in range(0, len(corners), config.batch_size):
        some = corners[first : first + config.batch_size]
        places = [(slice(top, top + window), slice(left, left + window)) for top, left in some]
        crops = Images.from_list([pixels[:, rows, columns] for rows, columns in places], model.size_divisor)
        for (rows, columns), scores in zip(places, model.predict(crops), strict=True):
            logits: Tensor = scores.logits
            if total is None:
                total = logits.new_zeros(len(logits), height, width)
            total[:, rows, columns] += logits
            count[rows, columns] += 1
    assert total is not None, "an image has a window"
    return total.div_(count)


def _corners(size: tuple[int, int], config: SemanticInference) -> list[tuple[int, int]]:
    """The top left corners of the windows over a (height, width), row by row."""
    window = config.window or max(size)
    stride = config.stride or max(1, round(window * 2 / 3))
    rows, columns = (_starts(side, window, stride) for side in size)
    return list(itertools.product(rows, columns))


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows start along a side: a stride apart, but the last one where it ends with the side."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]


def _resize(maps: Float[Tensor, "c _ _"], size: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Bilinearly to a (height, width)."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
