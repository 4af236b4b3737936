"""Evaluation on images as they are, for models that resize them themselves."""

from typing import Literal

import albumentations as A

from .base import TRANSFORMS, Transform, TransformConfig


class KeepSizeConfig(TransformConfig):
    """No change of the images."""

    name: Literal["keep_size"] = "keep_size"


@TRANSFORMS.register("keep_size", KeepSizeConfig)
def build_keep_size(seed: int, config: KeepSizeConfig) -> Transform:
    """Build a transform that changes nothing."""
    return Transform(seed, [A.NoOp()], config.boxes_from_masks)
