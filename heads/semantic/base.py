"""What a semantic head is: a class for every pixel, learned and predicted at the size of the images."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from ...ops import NormKind, norm_layer, pad_maps, resize_maps
from ...structures import IGNORE, Config, FeatureInfo, Features, Images, SemanticLogits, check_targets
from ..base import Head, HeadConfig, require_levels
from .layers import PixelClassifier
from .losses import SemanticLoss, SemanticLossConfig


class AuxiliaryConfig(Config):
    """A second, shallower classifier whose loss helps training (1612.01105 section 3.3); predictions ignore it."""

    level: str = "c4"
    """The level that it reads."""
    weight: PositiveFloat = 0.4
    """What its loss is multiplied by in the sum with the head's own; torchvision's training script has 0.5."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of its features that training sets to zero."""


class SemanticConfig(HeadConfig):
    """The hyper-parameters that every semantic head has."""

    norm: NormKind = "batch"
    """The norm that follows each convolution but those that give logits."""
    loss: SemanticLossConfig = SemanticLossConfig()
    auxiliary: AuxiliaryConfig | None = None


class SemanticHead(Head[Int64[Tensor, "h w"], SemanticLogits]):
    """Pyramid -> logits of every pixel. A subclass computes them on the grid of a level."""

    task: ClassVar[str] = "semantic"

    def __init__(self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: SemanticConfig) -> None:
        super().__init__()
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(
                f"a semantic head needs 1 to {IGNORE} classes, since a map of bytes keeps {IGNORE} for what is "
                f"ignored; got num_classes={num_classes}"
            )
        self.config, self.num_classes = config, num_classes
        self.criterion = SemanticLoss(num_classes, config.loss)
        self.auxiliary = None
        if (auxiliary := config.auxiliary) is not None:
            require_levels("the auxiliary classifier", feature_info, [auxiliary.level])
            channels = feature_info[auxiliary.level].channels
            self.auxiliary = PixelClassifier(channels, num_classes, norm_layer(config.norm), auxiliary.dropout)

    @abstractmethod
    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        """Compute logits on the grid of a level."""

    def loss(
        self, features: Features, images: Images, targets: Sequence[Int64[Tensor, "_ _"]]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return ``loss_semantic``, and with an auxiliary classifier ``loss_auxiliary``, already times its weight."""
        check_targets(targets, images, self.num_classes)
        height, width = images.padded_size
        target = pad_maps(targets, (height, width))
        losses = {"loss_semantic": self._full_size_loss(self(features, images), target)}
        if self.auxiliary is not None and (auxiliary := self.config.auxiliary) is not None:
            logits = self.auxiliary(features[auxiliary.level])
            losses["loss_auxiliary"] = auxiliary.weight * self._full_size_loss(logits, target)
        return losses

    def _full_size_loss(self, logits: Float[Tensor, "b k _ _"], target: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        height, width = target.shape[-2:]
        return self.criterion(resize_maps(logits.float(), (height, width)), target)

    def predict(self, features: Features, images: Images) -> list[SemanticLogits]:
        """Return the logits of each image, on the grid of the level."""
        grids = self(features, images).float()
        height, width = images.padded_size
        return [
            SemanticLogits.from_grid(grid, (height, width), (size[0], size[1]))
            for grid, size in zip(grids, images.sizes.tolist(), strict=True)
        ]
