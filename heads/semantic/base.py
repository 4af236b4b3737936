"""What a semantic head is: a class for every pixel, learned and predicted at the size of the images."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from ...ops import NormKind, norm_layer, pad_maps
from ...structures import IGNORE, Config, FeatureInfo, Features, Images, SemanticLogits, check_targets
from ..base import Head, HeadConfig
from .layers import PixelClassifier, require_levels, resize
from .losses import SemanticLoss, SemanticLossConfig


class AuxiliaryConfig(Config):
    """A second, shallower classifier whose loss helps a training (1612.01105 section 3.3); predictions ignore it."""

    level: str = "c4"
    weight: PositiveFloat = 0.4
    """Of its loss, in the sum with the head's own; torchvision's training script has 0.5."""
    dropout: float = Field(default=0.1, ge=0, lt=1)


class SemanticConfig(HeadConfig):
    """What every semantic head has."""

    norm: NormKind = "batch"
    """What follows each convolution but those that give logits."""
    loss: SemanticLossConfig = SemanticLossConfig()
    auxiliary: AuxiliaryConfig | None = None


class SemanticHead(Head[Int64[Tensor, "h w"], SemanticLogits]):
    """Pyramid -> logits of every pixel. A subclass gives them on the grid of a level."""

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
        if (extra := config.auxiliary) is not None:
            require_levels("the auxiliary classifier", feature_info, [extra.level])
            channels = feature_info[extra.level].channels
            self.auxiliary = PixelClassifier(channels, num_classes, norm_layer(config.norm), extra.dropout)

    @abstractmethod
    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        """Logits on the grid of a level."""

    def loss(
        self, features: Features, images: Images, targets: Sequence[Int64[Tensor, "_ _"]]
    ) -> dict[str, Float[Tensor, ""]]:
        """``loss_semantic``, and with an auxiliary classifier ``loss_auxiliary``, which has its weight already."""
        check_targets(targets, images, self.num_classes)
        height, width = images.pixels.shape[-2:]
        truth = pad_maps(targets, (height, width))
        losses = {"loss_semantic": self._judge(self(features, images), truth)}
        if self.auxiliary is not None and (extra := self.config.auxiliary) is not None:
            losses["loss_auxiliary"] = extra.weight * self._judge(self.auxiliary(features[extra.level]), truth)
        return losses

    def _judge(self, logits: Float[Tensor, "b k _ _"], truth: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        return self.criterion(resize(logits.float(), truth.shape[-2:]), truth)

    def predict(self, features: Features, images: Images) -> list[SemanticLogits]:
        """Logits of every pixel of each image, its padding cut off."""
        logits = resize(self(features, images).float(), images.pixels.shape[-2:])
        sizes = images.sizes.tolist()
        return [SemanticLogits(own[:, :height, :width]) for own, (height, width) in zip(logits, sizes, strict=True)]
