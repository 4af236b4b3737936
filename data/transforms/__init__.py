"""Transforms of images and annotations for training and evaluation, based on albumentations; see ``TRANSFORMS``."""

from .base import TRANSFORMS, Transform, TransformConfig, build_transform
from .color import ColorJitterConfig
from .crops import CenterCropConfig, RandomCropConfig
from .keep_size import KeepSizeConfig
from .preprocessing import as_preprocessing, as_transform
from .resize import ResizeConfig
from .sample import to_sample
from .scaled_crop import ScaledCropConfig

__all__ = [
    "TRANSFORMS",
    "CenterCropConfig",
    "ColorJitterConfig",
    "KeepSizeConfig",
    "RandomCropConfig",
    "ResizeConfig",
    "ScaledCropConfig",
    "Transform",
    "TransformConfig",
    "as_preprocessing",
    "as_transform",
    "build_transform",
    "to_sample",
]
