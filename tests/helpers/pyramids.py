"""A small pyramid such as a backbone of four stages gives to a neck."""

import torch
from torch import Tensor

from vertebra.structures import FeatureInfo

BACKBONE = {
    "c2": FeatureInfo(8, 4),
    "c3": FeatureInfo(16, 8),
    "c4": FeatureInfo(32, 16),
    "c5": FeatureInfo(64, 32),
}


def features_of(feature_info: dict[str, FeatureInfo], height: int = 161, width: int = 227) -> dict[str, Tensor]:
    """Return random features for two images, with ceil(size / stride) cells per side in each level."""
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(2, info.channels, -(-height // info.stride), -(-width // info.stride), generator=generator)
        for level, info in feature_info.items()
    }
