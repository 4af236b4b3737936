"""A crop of one size of an image at a random scale: large-scale jitter, and how segmenters are trained."""

from typing import Annotated, Any, Literal

import albumentations as A
from pydantic import Field, PositiveInt, model_validator

from ...structures import IGNORE
from ..types import FILL
from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig
from .resize import Resize

Scale = Annotated[float, Field(gt=0)]


class ScaledCropConfig(TransformConfig):
    """A crop of one size of the image at a random scale.

    Defaults are large-scale jitter's (2012.07177 section 4), where a scale of 1 fits the whole image into the crop.
    """

    name: Literal["scaled_crop"] = "scaled_crop"
    size: tuple[PositiveInt, PositiveInt] = (1024, 1024)
    """Height and width of the crop in pixels. What the image does not fill, at the bottom and the right (left, where it
    is flipped), has the mean colour, no objects and no known class."""
    scales: tuple[Scale, Scale] = (0.1, 2.0)
    """The least and the greatest scale; every scale between is equally likely."""
    short_side: PositiveInt | None = None
    """Pixels of the short side at a scale of 1 (1606.00915 and torchvision's segmenters); None fits the image into the
    crop."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    @model_validator(mode="after")
    def _check_scales(self) -> "ScaledCropConfig":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales go from the least to the greatest; got {self.scales}")
        return self

    def output_short_side(self) -> int:
        """Return the short side at a scale of 1."""
        return min(self.size) if self.short_side is None else self.short_side


@TRANSFORMS.register("scaled_crop", ScaledCropConfig)
def build_scaled_crop(seed: int, config: ScaledCropConfig) -> Transform:
    """Build a random scale, a crop at a random position, a flip, and colour jitter if the config has it."""
    steps: list[A.BasicTransform] = [
        RandomScale(config.scales, config.short_side, config.size),
        A.RandomCrop(*config.size, pad_if_needed=True, pad_position="top_left", fill=FILL, fill_mask=IGNORE),
        A.HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class RandomScale(Resize):
    """Resize by a drawn multiple of the factor that gives the short side one length, or fits the image into a size."""

    def __init__(self, scales: tuple[float, float], short_side: int | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.scales, self.short_side, self.size = scales, short_side, size

    def get_params(self) -> dict[str, Any]:
        """Draw the multiple."""
        return {"drawn": self.py_random.uniform(*self.scales)}

    def scale(self, height: int, width: int, drawn: float) -> float:
        fit = min(self.size[0] / height, self.size[1] / width)
        return drawn * (fit if self.short_side is None else self.short_side / min(height, width))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the arguments that albumentations prints of a pipeline."""
        return ("scales", "short_side", "size")
