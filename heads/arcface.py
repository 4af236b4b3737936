"""The ArcFace head: image embeddings trained with a margin-based softmax over class centers (1801.07698)."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from ..ops import norm_layer, normalize_vectors
from ..structures import Embedding, FeatureInfo, Features, Images, NonNegative, check_targets
from .base import HEADS, Head, HeadConfig, PredictsTensors, require_classes
from .class_rows import ClassRows
from .pooling import pool_levels, pooled_strides

_ANGLE_EPS = 1e-7  # the derivative of the arc cosine is infinite at 1 and -1
_CENTER_STD = 0.01  # as in InsightFace; the norm of a center does not change the loss, but scales its gradient


class ArcFaceConfig(HeadConfig):
    """The options of the ArcFace head.

    With t the angle between an embedding and a class center, the logit of the true class is ``scale *
    (cos(angle_factor * t + angular_margin) - cosine_margin)``, and that of any other class is ``scale * cos(t)``. The
    defaults are ArcFace's margin, :data:`COSFACE` has CosFace's, and an ``angle_factor`` above 1 is SphereFace's
    (1704.08063). All three together are the combined margin of 1801.07698 section 2.2.
    """

    name: Literal["arcface"] = "arcface"
    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The levels to pool and concatenate. None: the coarsest."""
    channels: int = Field(default=512, gt=0)
    """The length of an embedding."""
    norm: Literal["batch", "sync", "none"] = "batch"
    """The norm layer applied to embeddings before they are scaled to unit length: InsightFace uses ``batch``,
    pytorch-metric-learning none. ``sync`` is batch norm with statistics over all processes."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of the pooled features. InsightFace uses 0, or 0.4 for small training sets."""
    angle_factor: float = Field(default=1.0, gt=0)
    """Factor of the angle to the true class: 1 in ArcFace and CosFace."""
    angular_margin: float = Field(default=0.5, ge=0, lt=math.pi)
    """Margin added to the angle, in radians. pytorch-metric-learning uses 28.6 degrees, which are 0.4992 radians."""
    cosine_margin: NonNegative = 0.0
    """Margin subtracted from the cosine. For CosFace it is 0.35 in the paper and in pytorch-metric-learning, and 0.4 in
    InsightFace."""
    scale: float = Field(default=64.0, gt=0)
    """The factor of all logits, an inverse temperature."""
    beyond_pi: Literal["linear", "easy", "cosine"] = "linear"
    """The rule for angles that exceed pi with the margin, where the cosine would rise again. ``linear``: subtract
    ``angular_margin * sin(angular_margin)`` from the cosine of the angle there (InsightFace's MXNet code,
    pytorch-metric-learning). ``easy``: add the margin only to angles below pi / 2 (InsightFace's ``easy_margin``).
    ``cosine``: apply the formula everywhere (InsightFace's PyTorch code, which also takes the derivative of the angular
    margin to be 1)."""


COSFACE = ArcFaceConfig(angular_margin=0.0, cosine_margin=0.35)
"""The margin of CosFace (1801.09414)."""


@HEADS.register("arcface", ArcFaceConfig)
class ArcFaceHead(Head[Int64[Tensor, ""], Embedding], PredictsTensors[Embedding]):
    """Image embeddings: images of the same class get similar vectors, also for classes not seen in training.

    Training compares each embedding with one center per class; prediction needs neither centers nor labels.
    """

    task: ClassVar[str] = "embedding"
    target_task: ClassVar[str] = "classification"
    class_rows: ClassVar = {"centers": ClassRows()}

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: ArcFaceConfig = ArcFaceConfig()
    ) -> None:
        super().__init__()
        require_classes("the ArcFace head", num_classes)
        self.config = config
        self.strides = pooled_strides("the ArcFace head", feature_info, config.levels)
        self.dropout = nn.Dropout(config.dropout)
        self.embed = nn.Linear(sum(feature_info[level].channels for level in self.strides), config.channels)
        self.norm = norm_layer(config.norm)(config.channels)
        self.centers = nn.Linear(config.channels, num_classes, bias=False)
        nn.init.normal_(self.centers.weight, std=_CENTER_STD)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b d"]:
        """Compute the embedding of each image, a float32 vector of unit length that does not depend on padding."""
        embedded = self.embed(self.dropout(pool_levels(features, images, self.strides)))
        return F.normalize(normalize_vectors(embedded[:, :, None, None], self.norm).flatten(1).float())

    def loss(self, features: Features, images: Images, targets: Sequence[Int64[Tensor, ""]]) -> dict[str, Tensor]:
        """Compute ``loss_class``, the mean cross-entropy of the logits with margin, and the metric ``target_angle``.

        The metric is the angle in degrees between an embedding and the center of its class, without the margin.
        """
        check_targets(targets, images, self.centers.out_features)
        labels = torch.stack(list(targets))
        cosines = self._cosines(self(features, images))
        logits = self.config.scale * add_margin(cosines, labels, self.config)
        angles = _angle(cosines.detach().gather(1, labels[:, None])[:, 0]).rad2deg()
        return {"loss_class": F.cross_entropy(logits, labels), "target_angle": angles}

    def predict(self, features: Features, images: Images) -> list[Embedding]:
        """Return the embedding of each image."""
        return self.assemble(self.predict_tensors(features, images), images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the ``vector`` of each image."""
        return {"vector": self(features, images)}

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[Embedding]:
        """Return the embedding of each image."""
        return [Embedding(vector) for vector in tensors["vector"]]

    def _cosines(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return the cosines between embeddings and class centers, computed in float32 even under autocast.

        Multiplied by a scale of 64, rounding to half precision would cause errors above 0.1 in the logits.
        """
        device = embeddings.device.type
        exact = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if exact else contextlib.nullcontext():
            return F.linear(embeddings, F.normalize(self.centers.weight.float()))


def add_margin(
    cosines: Float[Tensor, "b k"], labels: Int64[Tensor, " b"], config: ArcFaceConfig
) -> Float[Tensor, "b k"]:
    """Return the cosines with the margin of the config applied to the true class of each image only."""
    columns = labels[:, None]
    return cosines.scatter(1, columns, _with_margin(cosines.gather(1, columns), config))


def _with_margin(cosine: Float[Tensor, "b 1"], config: ArcFaceConfig) -> Float[Tensor, "b 1"]:
    """Return ``cos(angle_factor * t + angular_margin) - cosine_margin``, given cos(t); see ``beyond_pi``."""
    factor, margin = config.angle_factor, config.angular_margin
    if factor == 1 and margin == 0:  # CosFace needs no arc cosine, whose derivative is unbounded
        return cosine - config.cosine_margin
    angle = _angle(cosine)
    moved = (factor * angle + margin).cos()
    if config.beyond_pi == "easy":
        moved = torch.where(cosine > 0, moved, cosine)
    elif config.beyond_pi == "linear":
        largest = (math.pi - margin) / factor
        excess = math.pi - largest  # the margin, if the factor is 1
        moved = torch.where(angle <= largest, moved, cosine - excess * math.sin(excess))
    return moved - config.cosine_margin


def _angle(cosine: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the arc cosine in radians; its derivative is finite even at 1 and -1."""
    return cosine.clamp(_ANGLE_EPS - 1, 1 - _ANGLE_EPS).arccos()
