"""A fixed-size crop of the image at a random scale: large-scale jitter, and training of segmentation models."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import albumentations as A
from pydantic import Field, PositiveInt, model_validator

from ...structures import IGNORE
from ..types import FILL
from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig
from .mask_steps import HorizontalFlip, RandomCrop
from .resize import Resize

Scale = Annotated[float, Field(gt=0)]


class ScaledCropConfig(TransformConfig):
    """A resize by a random scale, and a random crop of a fixed size.

    The defaults are large-scale jitter (2012.07177 section 4), where a scale of 1 fits the full image into the crop.
    """

    name: Literal["scaled_crop"] = "scaled_crop"
    size: tuple[PositiveInt, PositiveInt] = (1024, 1024)
    """Height and width of the crop in pixels. A smaller image is padded at the bottom and right, before the flip, with
    ImageNet's mean color; the padding is ignored in semantic maps."""
    scales: tuple[Scale, Scale] = (0.1, 2.0)
    """Range of the scale, which is drawn uniformly."""
    short_side: PositiveInt | None = None
    """Length of the short side in pixels at a scale of 1 (1606.00915, torchvision's segmentation models); None fits the
    image into the crop."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    @model_validator(mode="after")
    def _check_scales(self) -> "ScaledCropConfig":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales must be (minimum, maximum); got {self.scales}")
        return self

    def output_short_side(self) -> int:
        """Return the length of the short side at a scale of 1, in pixels."""
        return min(self.size) if self.short_side is None else self.short_side


@TRANSFORMS.register("scaled_crop", ScaledCropConfig)
def build_scaled_crop(seed: int, config: ScaledCropConfig) -> Transform:
    """Build the transform: a random scale, a random crop, a flip, and color jitter if the config has it."""
    steps: list[A.BasicTransform] = [
        RandomScale(config.scales, config.short_side, config.size),
        RandomCrop(*config.size, pad_if_needed=True, pad_position="top_left", fill=FILL, fill_mask=IGNORE),
        HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class RandomScale(Resize):
    """Resize by a random multiple of a base factor, which fits the short side to a length or the image into a size."""

    def __init__(self, scales: tuple[float, float], short_side: int | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.scales, self.short_side, self.size = scales, short_side, size

    def get_params(self) -> dict[str, Any]:
        """Draw the multiple of the base factor."""
        return {"drawn": self.py_random.uniform(*self.scales)}

    def output_size(self, shape: Sequence[int], drawn: float) -> tuple[int, int]:
        height, width = shape[:2]
        fit = min(self.size[0] / height, self.size[1] / width)
        scale = drawn * (fit if self.short_side is None else self.short_side / min(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the constructor arguments, which albumentations prints."""
        return ("scales", "short_side", "size")
