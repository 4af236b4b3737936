"""Training samples made of several images, after each of them went through the transform."""

from .base import MIXES, Mix, MixConfig, build_mix
from .copy_paste import CopyPasteConfig
from .mixup import MixupConfig
from .mosaic import MosaicConfig

__all__ = [
    "MIXES",
    "CopyPasteConfig",
    "Mix",
    "MixConfig",
    "MixupConfig",
    "MosaicConfig",
    "build_mix",
]
