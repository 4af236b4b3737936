"""What the branches of an R-CNN see of a region."""

import itertools
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from ..ops import NormKind, RoIAlignConfig, conv_block, norm_layer, pool_regions
from ..structures import FeatureInfo, Features

LEVELS = ("p2", "p3", "p4", "p5")
"""Those that R-CNN reads regions from (1612.03144 section 4.2)."""


class RegionPooler:
    """Regions -> a piece of fixed size out of the level that fits each."""

    def __init__(
        self, reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str] | None, config: RoIAlignConfig
    ) -> None:
        self.config = config
        self.levels = tuple(levels or (level for level in LEVELS if level in feature_info))
        missing = [level for level in self.levels if level not in feature_info]
        if missing or not self.levels:
            raise ValueError(f"the {reader} reads levels {self.levels or 'p2..p5'}; got {tuple(feature_info)}")
        self.strides = [feature_info[level].stride for level in self.levels]
        if any(second != 2 * first for first, second in itertools.pairwise(self.strides)):
            raise ValueError(f"the {reader} needs each level to halve the one before; got strides {self.strides}")
        channels = [feature_info[level].channels for level in self.levels]
        if len(set(channels)) > 1:
            raise ValueError(
                f"the {reader} needs the same channels on all levels; {self.levels} have {channels}: use a neck"
            )
        self.channels = channels[0]

    def __call__(self, features: Features, boxes: Float[Tensor, "b r 4"]) -> Float[Tensor, "br c s s"]:
        """The pieces of all images, image by image in one batch."""
        return pool_regions([features[level] for level in self.levels], self.strides, boxes, self.config)


def region_convolutions(channels: int, widths: Sequence[int], norm: NormKind) -> nn.Sequential:
    """3x3 convolutions over pooled regions, with ReLU; He's normal initialisation by fan-out, as detectron2."""
    blocks = nn.Sequential(
        *(conv_block(*pair, 3, norm_layer(norm), "relu") for pair in itertools.pairwise([channels, *widths]))
    )
    initialize_convolutions(blocks)
    return blocks


def initialize_convolutions(part: nn.Module) -> None:
    """He's normal initialisation by fan-out, without an offset."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
