"""Vertebra: vision backbones for detection and segmentation.

An image becomes a dict of named feature maps, and a head turns those into losses or predictions. The names below are
imported on first use (PEP 562), so that ``import vertebra`` is instant.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "create_backbone": "backbones",
    "list_backbones": "backbones",
    "load_backbone_weights": "backbones",
    "Backbone": "backbones",
    "FPN": "necks",
    "PAFPN": "necks",
    "BiFPN": "necks",
    "NASFPN": "necks",
    "SimplePyramid": "necks",
    "default_neck": "necks",
    "Passthrough": "necks",
    "Neck": "necks",
    "Head": "heads",
    "RCNNHead": "heads",
    "RCNNConfig": "heads",
    "MaskBranchConfig": "heads",
    "DeepLabHead": "heads",
    "DeepLabConfig": "heads",
    "Model": "models",
    "create_model": "configs",
    "load_model": "engine",
    "Predictor": "engine",
    "paste_masks": "ops",
    "label_map": "ops",
    "FeatureInfo": "structures",
    "Features": "structures",
    "Images": "structures",
    "Instances": "structures",
    "Detections": "structures",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
