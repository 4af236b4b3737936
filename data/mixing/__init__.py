"""Mixes: training samples made of several images, each transformed first (mosaic, mixup, copy-paste)."""

from .base import MIXES, Mix, MixConfig, build_mix
from .copy_paste import CopyPasteConfig
from .mixup import MixupConfig
from .mosaic import MosaicConfig
from .sequence import MixSequenceConfig

__all__ = [
    "MIXES",
    "CopyPasteConfig",
    "Mix",
    "MixConfig",
    "MixSequenceConfig",
    "MixupConfig",
    "MosaicConfig",
    "build_mix",
]
