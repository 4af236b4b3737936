"""From a decoded image to a sample: albumentations, for training and evaluation alike."""

from .base import Transform, build_transform, transforms
from .crops import CenterCropConfig, RandomCropConfig
from .resize import ResizeConfig
from .scaled_crop import ScaledCropConfig

__all__ = [
    "CenterCropConfig",
    "RandomCropConfig",
    "ResizeConfig",
    "ScaledCropConfig",
    "Transform",
    "build_transform",
    "transforms",
]
