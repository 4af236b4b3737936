"""Semantic prediction with sliding windows and test-time augmentation (several scales, flips).

Sliding windows need memory for the activations of a few windows only. Each window is predicted as a separate image, and
logits are averaged where windows overlap. Each combination of scale and flip is a view of the image: its logits are
resized to the image, and the softmax probabilities of all views are averaged. Both conventions are mmsegmentation's
(``slide_inference``, ``SegTTAModel``).

With a single view the logits keep the low resolution of the windows. Several views need two or three float maps per
class of the size of the image.
"""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ..ops import full_size_logits, resize_maps
from ..structures import Config, Images, LogitWindow, SemanticLogits
from .model import PredictingModel


class SemanticInference(Config):
    """The options of sliding windows and test-time augmentation. The default is one pass over the complete image."""

    window: PositiveInt | None = None
    """Side length of the square windows in pixels; a smaller image is one window. None: predict the image at once."""
    stride: PositiveInt | None = None
    """Distance between windows in pixels; the last window ends at the image border. None: two thirds of a window."""
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    """Scales of test-time augmentation: factors by which the image is resized bilinearly. Windows keep their size."""
    flip: bool = False
    """Also predict the horizontally flipped image at every scale, and average."""
    batch_size: PositiveInt = 4
    """Windows per batch."""

    @model_validator(mode="after")
    def _check(self) -> "SemanticInference":
        if self.stride is not None and self.stride > (self.window or 0):
            raise ValueError(
                "stride must be at most the window, or there are gaps between windows; "
                f"got stride={self.stride} and window={self.window}"
            )
        return self

    @property
    def views(self) -> list[tuple[float, bool]]:
        """The views of an image as (scale, whether it is flipped)."""
        return [(scale, flipped) for scale in self.scales for flipped in ((False, True) if self.flip else (False,))]


@torch.no_grad()
def predict_semantic(
    model: PredictingModel, images: Images, config: SemanticInference = SemanticInference()
) -> list[SemanticLogits]:
    """Predict the class logits of each image; with a config other than the default, one image at a time.

    With several views the logits are the logarithm of the averaged probabilities, so that their softmax is the average.
    Call ``eval()`` first. Raises ValueError if the model's task is not semantic segmentation.
    """
    if model.head.task != "semantic":
        raise ValueError(
            f"predict_semantic needs a model for semantic segmentation; the task of this model is {model.head.task}"
        )
    if config.window is None and config.views == [(1.0, False)]:
        return model.predict(images)
    return [
        _predict_image(model, pixels[:, :height, :width], config)
        for pixels, (height, width) in zip(images.pixels, images.size_list(), strict=True)
    ]


def _predict_image(model: PredictingModel, pixels: UInt8[Tensor, "c h w"], config: SemanticInference) -> SemanticLogits:
    """Predict an image, averaged over its views."""
    (scale, flipped), *more_views = config.views
    if not more_views:
        height, width = pixels.shape[-2:]
        return replace(_predict_view(model, pixels, scale, config), size=(height, width))
    total = _view_probabilities(model, pixels, scale, flipped, config)
    for scale, flipped in more_views:
        total.add_(_view_probabilities(model, pixels, scale, flipped, config))
    smallest = torch.finfo(total.dtype).tiny
    return SemanticLogits.from_pixels(total.div_(len(config.views)).clamp_(min=smallest).log_())


def _view_probabilities(
    model: PredictingModel, pixels: UInt8[Tensor, "c h w"], scale: float, flipped: bool, config: SemanticInference
) -> Float[Tensor, "k h w"]:
    """Predict one view of an image; return the class probabilities of every pixel of the image."""
    height, width = pixels.shape[-2:]
    logits = full_size_logits(_predict_view(model, pixels.flip(-1) if flipped else pixels, scale, config))
    logits = logits.flip(-1) if flipped else logits
    return resize_maps(logits[None], (height, width))[0].softmax(dim=0)


def _predict_view(
    model: PredictingModel, pixels: UInt8[Tensor, "c h w"], scale: float, config: SemanticInference
) -> SemanticLogits:
    """Resize an image by ``scale`` and predict it window by window; return the logits of the resized image."""
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
    """Return the (top, left) corners of the windows of an image of ``size`` (height, width), row by row."""
    window = config.window or max(size)
    stride = config.stride or max(1, round(window * 2 / 3))
    rows, columns = (window_starts(side, window, stride) for side in size)
    return list(itertools.product(rows, columns))


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return the start of each window along a side; they are ``stride`` apart, and the last ends with the side."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]
