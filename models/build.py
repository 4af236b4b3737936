"""A model from a config."""

from collections.abc import Sequence
from typing import Annotated

from ..backbones import backbones
from ..heads import heads
from ..necks import necks
from ..structures import Config, PartConfig
from .model import Model
from .preprocess import InputConfig, Preprocess


class ModelConfig(Config):
    """Which parts, each with its own config. Channels, strides and class counts are never written here: they follow."""

    input: InputConfig = InputConfig()
    backbone: Annotated[PartConfig, *backbones.field()]
    weights: str | None = None
    """What the backbone starts a training from; see :func:`vertebra.backbones.load_backbone_weights`."""
    neck: Annotated[PartConfig, *necks.field()]
    head: Annotated[PartConfig, *heads.field()]


def build_model(config: ModelConfig, class_names: Sequence[str]) -> Model:
    """Build the parts on one another, for these classes; random weights."""
    backbone = backbones.build(config.backbone)
    neck = necks.build(config.neck, backbone.feature_info)
    head = heads.build(config.head, backbone.feature_info | neck.feature_info, len(class_names))
    return Model(backbone, neck, head, Preprocess(config.input), class_names)
