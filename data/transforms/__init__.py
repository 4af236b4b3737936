"""From a decoded image to a sample: albumentations, for training and evaluation alike. ``transforms`` in here is their
registry."""

from .base import Transform, TransformConfig, build_transform, transforms
from .color import ColorJitterConfig
from .crops import CenterCropConfig, RandomCropConfig
from .resize import ResizeConfig
from .sample import sample_of
from .scaled_crop import ScaledCropConfig

__all__ = [
    "CenterCropConfig",
    "ColorJitterConfig",
    "RandomCropConfig",
    "ResizeConfig",
    "ScaledCropConfig",
    "Transform",
    "TransformConfig",
    "build_transform",
    "sample_of",
    "transforms",
]
