"""The feature maps of a backbone as predictions, so that a backbone is exported as any model is."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...backbones import Backbone
from ...heads import Head, PredictsTensors
from ...models import Model
from ...necks import Passthrough
from ...structures import Features, Images


class FeatureMaps(Head[Any, dict[str, Tensor]], PredictsTensors[dict[str, Tensor]]):
    """A head without layers, which predicts the feature maps themselves."""

    task: ClassVar[str] = "features"

    def loss(self, features: Features, images: Images, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Return no losses."""
        return {}

    def predict(self, features: Features, images: Images) -> list[dict[str, Tensor]]:
        """Return the feature maps of each image by level."""
        return self.assemble(features, images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the feature maps of all images by level."""
        return dict(features)

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[dict[str, Tensor]]:
        """Return the feature maps of each image by level."""
        return [{name: tensor[index] for name, tensor in tensors.items()} for index in range(len(images))]


def features_model(backbone: Backbone) -> Model:
    """Return a model that predicts the feature maps of a backbone."""
    return Model(backbone, Passthrough(backbone.feature_info), FeatureMaps())
