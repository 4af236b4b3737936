"""The neck of a model that needs no neck: it returns the backbone's levels."""

from collections.abc import Mapping

from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck


class PassthroughConfig(PartConfig):
    """The config of ``Passthrough``, which has no options."""

    name: str = "passthrough"


@NECKS.register("passthrough", PassthroughConfig)
class Passthrough(Neck):
    """A neck that returns the backbone's levels unchanged."""

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], config: PassthroughConfig = PassthroughConfig()
    ) -> None:
        super().__init__()
        self.config = config
        self.levels = tuple(feature_info)
        self.feature_info = dict(feature_info)

    def forward(self, features: Features) -> Features:
        return features
