"""Semantic prediction by sliding windows, at several scales and mirrored.

It takes more time, and only the activations of a few windows at once. A window is predicted as an image of its own;
where windows overlap, their logits are averaged. Scales and mirror images are views of one image: the logits of each
view are resized to the image, and the softmax probabilities of the views are averaged. Both are mmseg's conventions
(``slide_inference``, ``SegTTAModel``).

With one view the logits stay on the grids of the windows. Several views have their probabilities added up for every
class and pixel: two or three maps of floats per class, as large as the image.
"""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ..ops import full_size_logits, resize_maps
from ..structures import Config, Images, LogitWindow, SemanticLogits
from .model import Model


class SemanticInference(Config):
    """How an image is divided and viewed. The default is ``Model.predict``."""

    window: PositiveInt | None = None
    """Side of the square windows in pixels; None takes the image at once. A smaller image is one window."""
    stride: PositiveInt | None = None
    """Pixels from one window to the next; None: two thirds of a window. The last window ends with the image."""
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    """Factors by which the image is resized, bilinearly; windows keep their size."""
    flip: bool = False
    """Whether every scale is also viewed mirrored, left to right."""
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
        """The scale of each view, and whether it is mirrored."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]


@torch.no_grad()
def predict_semantic(
    model: Model, images: Images, config: SemanticInference = SemanticInference()
) -> list[SemanticLogits]:
    """Predict the class logits of each image; where the config is not the default, one image at a time.

    With several views they are the logarithm of the averaged probability, so that their softmax is that average. Call
    ``eval()`` first, as for any module.
    """
    if model.head.task != "semantic":
        raise ValueError(
            f"predict_semantic is for models that predict a class for every pixel; this one's task is {model.head.task}"
        )
    if config.window is None and config.views == [(1.0, False)]:
        return model.predict(images)
    return [
        _predict_image(model, pixels[:, :height, :width], config)
        for pixels, (height, width) in zip(images.pixels, images.sizes.tolist(), strict=True)
    ]


def _predict_image(model: Model, pixels: UInt8[Tensor, "c h w"], config: SemanticInference) -> SemanticLogits:
    """Predict one image from all of its views."""
    (scale, mirrored), *others = config.views
    if not others:
        height, width = pixels.shape[-2:]
        return replace(_predict_view(model, pixels, scale, config), size=(height, width))
    total = _view_probabilities(model, pixels, scale, mirrored, config)
    for scale, mirrored in others:
        total.add_(_view_probabilities(model, pixels, scale, mirrored, config))
    smallest = torch.finfo(total.dtype).tiny
    return SemanticLogits.from_pixels(total.div_(len(config.views)).clamp_(min=smallest).log_())


def _view_probabilities(
    model: Model, pixels: UInt8[Tensor, "c h w"], scale: float, mirrored: bool, config: SemanticInference
) -> Float[Tensor, "k h w"]:
    """Return the probabilities of the classes for every pixel of an image that one view of it gives."""
    height, width = pixels.shape[-2:]
    logits = full_size_logits(_predict_view(model, pixels.flip(-1) if mirrored else pixels, scale, config))
    logits = logits.flip(-1) if mirrored else logits
    return resize_maps(logits[None], (height, width))[0].softmax(dim=0)


def _predict_view(
    model: Model, pixels: UInt8[Tensor, "c h w"], scale: float, config: SemanticInference
) -> SemanticLogits:
    """Predict an image resized by ``scale``, window by window; the prediction is for the resized image."""
    height, width = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    view = resize_maps(pixels.float()[None], (height, width))[0].round().to(torch.uint8)
    side = config.window or max(height, width)
    corners = _corners((height, width), config)
    windows: list[LogitWindow] = []
    for first in range(0, len(corners), config.batch_size):
        batch = corners[first : first + config.batch_size]
        crops = [view[:, top : top + side, left : left + side] for top, left in batch]
        predictions: list[SemanticLogits] = model.predict(Images.from_list(crops, model.size_divisor))
        for corner, prediction in zip(batch, predictions, strict=True):
            (window,) = prediction.windows
            windows.append(replace(window, corner=corner))
    return SemanticLogits(tuple(windows), frame=(height, width), size=(height, width))


def _corners(size: tuple[int, int], config: SemanticInference) -> list[tuple[int, int]]:
    """Return the (top, left) corners of the windows over a (height, width), row by row."""
    window = config.window or max(size)
    stride = config.stride or max(1, round(window * 2 / 3))
    rows, columns = (_starts(side, window, stride) for side in size)
    return list(itertools.product(rows, columns))


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Return where windows start along a side: a stride apart, but the last one where it ends with the side."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]
