"""The base class of heads for semantic segmentation, and their auxiliary classifier."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from ...ops import NormKind, norm_layer, pad_maps, resize_maps
from ...structures import IGNORE, Config, FeatureInfo, Features, Images, SemanticLogits, check_targets
from ..base import Head, HeadConfig, PredictsTensors, require_levels
from .layers import PixelClassifier
from .losses import SemanticLoss, SemanticLossConfig
from .points import PointRefinement, PointRefinementConfig


class AuxiliaryConfig(Config):
    """An auxiliary classifier on a shallower level, used in training only (1612.01105 section 3.3)."""

    level: str = "c4"
    """The level to read."""
    weight: PositiveFloat = 0.4
    """Multiplier of the auxiliary loss; torchvision's training script uses 0.5."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability before the logits."""


class SemanticConfig(HeadConfig):
    """The options that all semantic heads share."""

    norm: NormKind = "batch"
    """The norm after each convolution, except those that compute logits."""
    loss: SemanticLossConfig = SemanticLossConfig()
    auxiliary: AuxiliaryConfig | None = None
    """The auxiliary classifier. None: no auxiliary loss."""
    align_corners: bool = False
    """How maps are resized bilinearly: whether the centers of the corner cells stay in place, as in
    segmentation_models_pytorch, or the corners of the map."""
    refinement: PointRefinementConfig | None = None
    """PointRend's refinement of the logits (1912.08193 section 4.2). None: bilinear upsampling."""


class SemanticHead(Head[Int64[Tensor, "h w"], SemanticLogits], PredictsTensors[SemanticLogits]):
    """Base class of semantic heads; subclasses compute the logits at the resolution of a level in ``forward``.

    The losses are computed at full resolution, after bilinear upsampling.
    """

    task: ClassVar[str] = "semantic"

    def __init__(self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: SemanticConfig) -> None:
        super().__init__()
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(
                f"a semantic head needs 1 to {IGNORE} classes, since label {IGNORE} of a uint8 map marks ignored "
                f"pixels; got num_classes={num_classes}"
            )
        self.config, self.num_classes = config, num_classes
        self.criterion = SemanticLoss(num_classes, config.loss)
        self.auxiliary = None
        if (auxiliary := config.auxiliary) is not None:
            require_levels("the auxiliary classifier", feature_info, [auxiliary.level])
            channels = feature_info[auxiliary.level].channels
            self.auxiliary = PixelClassifier(channels, num_classes, norm_layer(config.norm), auxiliary.dropout)
        self.refinement = None
        if config.refinement is not None:
            self.refinement = PointRefinement(feature_info, num_classes, config.refinement)

    @abstractmethod
    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        """Compute the class logits at the resolution of a level."""

    def loss(
        self, features: Features, images: Images, targets: Sequence[Int64[Tensor, "_ _"]]
    ) -> dict[str, Float[Tensor, ""]]:
        """Check and pad the targets, and return the losses from :meth:`padded_loss`."""
        check_targets(targets, images, self.num_classes)
        return self.padded_loss(features, images, pad_maps(targets, images.padded_size))

    def padded_loss(
        self, features: Features, images: Images, target: Int64[Tensor, "b h w"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the losses from label maps that are checked and padded; compile this method rather than ``loss``.

        The result has ``loss_semantic`` and, with an auxiliary classifier, ``loss_auxiliary`` (times its weight). With
        a refinement it also has ``loss_points``, the loss of its training points.
        """
        coarse = self(features, images).float()
        losses = {"loss_semantic": self._full_size_loss(coarse, target)}
        if self.auxiliary is not None and (auxiliary := self.config.auxiliary) is not None:
            logits = self.auxiliary(features[auxiliary.level])
            losses["loss_auxiliary"] = auxiliary.weight * self._full_size_loss(logits, target)
        if self.refinement is not None:
            weights = self.criterion.class_weights
            losses["loss_points"] = self.refinement.loss(coarse, features, images, target, weights)
        return losses

    def _full_size_loss(self, logits: Float[Tensor, "b k _ _"], target: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
        height, width = target.shape[-2:]
        return self.criterion(resize_maps(logits.float(), (height, width), self.config.align_corners), target)

    def predict(self, features: Features, images: Images) -> list[SemanticLogits]:
        """Return the logits of each image, at the resolution of the level or, with a refinement, at a higher one."""
        return self.assemble(self.predict_tensors(features, images), images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the ``logits`` of the padded images."""
        grids = self(features, images).float()
        return {"logits": grids if self.refinement is None else self.refinement.refine(grids, features)}

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[SemanticLogits]:
        """Return the logits of each image."""
        height, width = images.padded_size
        return [
            SemanticLogits.from_grid(grid, (height, width), size, self.config.align_corners)
            for grid, size in zip(tensors["logits"], images.size_list(), strict=True)
        ]
