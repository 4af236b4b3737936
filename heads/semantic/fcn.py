"""FCN, a fully convolutional network on a single level, without skip connections, as in torchvision (1411.4038)."""

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from ...ops import norm_layer
from ...structures import FeatureInfo, Features, Images
from ..base import HEADS, require_levels
from .base import AuxiliaryConfig, SemanticConfig, SemanticHead
from .layers import PixelClassifier, initialize


class FCNConfig(SemanticConfig):
    """The options of an FCN. Defaults are torchvision's, for a backbone with ``output_stride=8``."""

    name: Literal["fcn"] = "fcn"
    level: str = "c5"
    """The level to read."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability before the logits."""
    convolutions: PositiveInt = 1
    """Number of 3x3 convolutions. MMSegmentation: 2."""
    concatenate: bool = False
    """Concatenate their output with the level, and apply another 3x3 convolution. MMSegmentation: True."""


TORCHVISION_FCN = FCNConfig(auxiliary=AuxiliaryConfig(weight=0.5))
"""The head of torchvision's ``fcn_resnet50``, for a backbone with ``output_stride=8``."""


@HEADS.register("fcn", FCNConfig)
class FCNHead(SemanticHead):
    """Fully convolutional network: computes logits from one level, at its resolution."""

    config: FCNConfig

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: FCNConfig = FCNConfig()
    ) -> None:
        super().__init__(feature_info, num_classes, config)
        require_levels("FCN", feature_info, [config.level])
        channels = feature_info[config.level].channels
        further = config.convolutions - 1
        self.classifier = PixelClassifier(
            channels, num_classes, norm_layer(config.norm), config.dropout, further, config.concatenate
        )
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        return self.classifier(features[self.config.level])
