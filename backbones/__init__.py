"""Floor 2: image -> pyramid. The imports below fill the registry."""

from .base import BACKBONES, Backbone, BackboneConfig
from .create import create_backbone, list_backbones
from .describe import BackboneDescription, describe_backbone
from .resnet import ResNet, ResNetConfig
from .timm_bridge import TimmBackbone, TimmConfig
from .variants import RESNETS, ResNetSpec
from .weight_origin import Origin, origin_metadata, weights_origin
from .weight_sources import input_metadata, list_weights
from .weights import load_backbone_weights, weights_input

__all__ = [
    "BACKBONES",
    "RESNETS",
    "Backbone",
    "BackboneConfig",
    "BackboneDescription",
    "Origin",
    "ResNet",
    "ResNetConfig",
    "ResNetSpec",
    "TimmBackbone",
    "TimmConfig",
    "create_backbone",
    "describe_backbone",
    "input_metadata",
    "list_backbones",
    "list_weights",
    "load_backbone_weights",
    "origin_metadata",
    "weights_input",
    "weights_origin",
]
