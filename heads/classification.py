"""The image classification head: global average pooling and a fully connected layer."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from ..structures import Classification, FeatureInfo, Features, Images, check_targets
from .base import HEADS, Head, HeadConfig, PredictsTensors
from .class_rows import ClassRows
from .pooling import pool_levels, pooled_strides


class ClassificationConfig(HeadConfig):
    """The options of the classification head."""

    name: Literal["classification"] = "classification"
    levels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The levels to pool and concatenate. None: the coarsest."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of the pooled features."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing: the fraction of the target that is spread evenly over all classes (1512.00567 section 7)."""
    top: int = Field(default=5, gt=0)
    """The number of classes in a prediction."""


@HEADS.register("classification", ClassificationConfig)
class ClassificationHead(Head[Int64[Tensor, ""], Classification], PredictsTensors[Classification]):
    """Image classification: predicts the most likely classes of the image."""

    task: ClassVar[str] = "classification"
    class_rows: ClassVar = {"fc": ClassRows()}

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: int,
        config: ClassificationConfig = ClassificationConfig(),
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a classifier needs at least one class; got num_classes={num_classes}")
        self.config = config
        self.strides = pooled_strides("the classifier", feature_info, config.levels)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(sum(feature_info[level].channels for level in self.strides), num_classes)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k"]:
        """Compute the class logits of each image; padding is excluded from the pooling."""
        return self.fc(self.dropout(pool_levels(features, images, self.strides)))

    def loss(self, features: Features, images: Images, targets: Sequence[Int64[Tensor, ""]]) -> dict[str, Tensor]:
        """Return ``loss_class``, the mean cross-entropy."""
        check_targets(targets, images, self.fc.out_features)
        logits = self(features, images)
        smoothing = self.config.label_smoothing
        return {"loss_class": F.cross_entropy(logits, torch.stack(list(targets)), label_smoothing=smoothing)}

    def predict(self, features: Features, images: Images) -> list[Classification]:
        """Return the ``top`` most likely classes of each image, or all classes if there are fewer."""
        return self.assemble(self.predict_tensors(features, images), images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the ``probabilities`` of all classes."""
        return {"probabilities": self(features, images).softmax(dim=1)}

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[Classification]:
        """Return the most likely classes of each image."""
        probabilities = tensors["probabilities"]
        best = probabilities.topk(min(self.config.top, probabilities.shape[1]))
        return [Classification(labels, scores) for labels, scores in zip(best.indices, best.values, strict=True)]
