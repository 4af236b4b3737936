"""The transforms of evaluation as values that prediction can carry out without a library of augmentation."""

from ...structures import ImagePreprocessing, PartConfig, ResizedCenterCrop, ShortSideResize
from .crops import CenterCropConfig
from .resize import ResizeConfig


def as_preprocessing(config: PartConfig) -> ImagePreprocessing | None:
    """Return what a transform does to an image as a value; None where it draws at random or has no such form."""
    if isinstance(config, CenterCropConfig):
        return ResizedCenterCrop(short_side=config.resize, size=config.size)
    if isinstance(config, ResizeConfig) and not _draws_at_random(config):
        return ShortSideResize(short_side=config.short_sides[0], long_side=config.long_side)
    return None


def _draws_at_random(config: ResizeConfig) -> bool:
    """Return whether an image comes out of the transform differently from time to time."""
    keeps_image = config.flip == 0 and config.crop == 1 and not config.color_jitter.steps()
    return not keeps_image or len(set(config.short_sides)) > 1
