"""Conversion of evaluation transforms to preprocessing configs, which inference applies without albumentations."""

from ...structures import ImagePreprocessing, KeepSize, PartConfig, ResizedCenterCrop, ShortSideResize
from .base import TransformConfig
from .crops import CenterCropConfig
from .keep_size import KeepSizeConfig
from .resize import ResizeConfig


def as_preprocessing(config: PartConfig) -> ImagePreprocessing | None:
    """Convert the config of a transform to a preprocessing config; return None for a random or any other transform."""
    if isinstance(config, CenterCropConfig):
        return ResizedCenterCrop(short_side=config.resize, size=config.size)
    if isinstance(config, ResizeConfig) and not _is_random(config):
        return ShortSideResize(short_side=config.short_sides[0], long_side=config.long_side, rounding=config.rounding)
    return KeepSize() if isinstance(config, KeepSizeConfig) else None


def as_transform(preprocessing: ImagePreprocessing) -> TransformConfig:
    """Convert a preprocessing config to the config of the transform that does the same."""
    if isinstance(preprocessing, ResizedCenterCrop):
        return CenterCropConfig(resize=preprocessing.short_side, size=preprocessing.size)
    if isinstance(preprocessing, KeepSize):
        return KeepSizeConfig()
    return ResizeConfig(
        short_sides=(preprocessing.short_side,),
        long_side=preprocessing.long_side,
        rounding=preprocessing.rounding,
    )


def _is_random(config: ResizeConfig) -> bool:
    """Return whether the result of a resize depends on random numbers."""
    only_resizes = config.flip == 0 and config.crop == 1 and not config.color_jitter.steps()
    return not only_resizes or len(set(config.short_sides)) > 1
