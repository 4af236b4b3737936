"""Floor 2: image -> pyramid. The imports below fill the registry."""

from ..ops import FrozenBatchNorm2d
from .base import Backbone, backbones, create_backbone, list_backbones
from .describe import BackboneDescription, describe_backbone
from .resnet import ResNet, ResNetConfig
from .variants import RESNETS, ResNetSpec
from .weights import load_backbone_weights

__all__ = [
    "RESNETS",
    "Backbone",
    "BackboneDescription",
    "FrozenBatchNorm2d",
    "ResNet",
    "ResNetConfig",
    "ResNetSpec",
    "backbones",
    "create_backbone",
    "describe_backbone",
    "list_backbones",
    "load_backbone_weights",
]
