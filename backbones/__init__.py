"""Backbones: networks that turn images into feature maps of several resolutions, and pretrained weights (layer 2).

Importing this package registers the built-in backbones in ``BACKBONES``.
"""

from .base import BACKBONES, Backbone, BackboneConfig, HasParameterLayers, HasUndecayedParameters
from .create import create_backbone, list_backbones
from .describe import BackboneDescription, describe_backbone
from .resnet import ResNet, ResNetConfig
from .timm_bridge import TimmBackbone, TimmConfig
from .variants import RESNETS, ResNetSpec
from .weight_files import (
    WeightsOrigin,
    read_facts,
    read_state_dict,
    read_weights_file,
    read_weights_metadata,
    weights_metadata,
)
from .weight_origin import weights_origin
from .weight_sources import list_weights
from .weights import load_backbone_weights, weights_input
from .wrappers import UnwrappedWeights, unwrap_state_dict

__all__ = [
    "BACKBONES",
    "RESNETS",
    "Backbone",
    "BackboneConfig",
    "BackboneDescription",
    "HasParameterLayers",
    "HasUndecayedParameters",
    "ResNet",
    "ResNetConfig",
    "ResNetSpec",
    "TimmBackbone",
    "TimmConfig",
    "UnwrappedWeights",
    "WeightsOrigin",
    "create_backbone",
    "describe_backbone",
    "list_backbones",
    "list_weights",
    "load_backbone_weights",
    "read_facts",
    "read_state_dict",
    "read_weights_file",
    "read_weights_metadata",
    "unwrap_state_dict",
    "weights_input",
    "weights_metadata",
    "weights_origin",
]
