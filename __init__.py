"""Vertebra: vision backbones for classification, detection and segmentation.

A backbone and a neck turn images into a dict of named feature maps, and a head turns these into losses or predictions.
The names below are imported on first use (PEP 562), so that ``import vertebra`` is instant.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform == "darwin":
    # Run operators that Apple's GPU lacks on the CPU instead of failing. torch reads this once, when it is imported.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from .backbones import Backbone, create_backbone, list_backbones, load_backbone_weights
    from .configs import create_model, list_models, load_config
    from .engine import TASKS, Task
    from .engine import evaluate_run as evaluate
    from .engine import train_run as train
    from .heads import (
        HEADS,
        DeepLabConfig,
        DeepLabHead,
        Head,
        HeadConfig,
        KeypointBranchConfig,
        MaskBranchConfig,
        RCNNConfig,
        RCNNHead,
    )
    from .inference import ExportConfig, Predictor, import_user_code, load_model, optimize_for_inference
    from .inference import export_model as export
    from .models import Model
    from .necks import FPN, NASFPN, PAFPN, BiFPN, Neck, Passthrough, SimplePyramid, default_neck
    from .ops import full_size_logits, label_map, paste_masks, total_loss
    from .structures import Detections, FeatureInfo, Features, Images, Instances

__version__ = "0.1.0"

__all__ = [
    "FPN",
    "HEADS",
    "NASFPN",
    "PAFPN",
    "TASKS",
    "Backbone",
    "BiFPN",
    "DeepLabConfig",
    "DeepLabHead",
    "Detections",
    "ExportConfig",
    "FeatureInfo",
    "Features",
    "Head",
    "HeadConfig",
    "Images",
    "Instances",
    "KeypointBranchConfig",
    "MaskBranchConfig",
    "Model",
    "Neck",
    "Passthrough",
    "Predictor",
    "RCNNConfig",
    "RCNNHead",
    "SimplePyramid",
    "Task",
    "__version__",
    "create_backbone",
    "create_model",
    "default_neck",
    "evaluate",
    "export",
    "full_size_logits",
    "import_user_code",
    "label_map",
    "list_backbones",
    "list_models",
    "load_backbone_weights",
    "load_config",
    "load_model",
    "optimize_for_inference",
    "paste_masks",
    "total_loss",
    "train",
]

_FOLDER_OF_NAME = {
    "Backbone": "backbones",
    "create_backbone": "backbones",
    "list_backbones": "backbones",
    "load_backbone_weights": "backbones",
    "create_model": "configs",
    "list_models": "configs",
    "load_config": "configs",
    "TASKS": "engine",
    "Task": "engine",
    "evaluate": "engine",
    "train": "engine",
    "DeepLabConfig": "heads",
    "DeepLabHead": "heads",
    "HEADS": "heads",
    "Head": "heads",
    "HeadConfig": "heads",
    "KeypointBranchConfig": "heads",
    "MaskBranchConfig": "heads",
    "RCNNConfig": "heads",
    "RCNNHead": "heads",
    "ExportConfig": "inference",
    "Predictor": "inference",
    "export": "inference",
    "import_user_code": "inference",
    "load_model": "inference",
    "optimize_for_inference": "inference",
    "Model": "models",
    "FPN": "necks",
    "NASFPN": "necks",
    "PAFPN": "necks",
    "BiFPN": "necks",
    "Neck": "necks",
    "Passthrough": "necks",
    "SimplePyramid": "necks",
    "default_neck": "necks",
    "full_size_logits": "ops",
    "label_map": "ops",
    "paste_masks": "ops",
    "total_loss": "ops",
    "Detections": "structures",
    "FeatureInfo": "structures",
    "Features": "structures",
    "Images": "structures",
    "Instances": "structures",
}
_NAME_IN_FOLDER = {"evaluate": "evaluate_run", "export": "export_model", "train": "train_run"}
"""Names that differ in their folder: ``vertebra.evaluate`` is ``vertebra.engine.evaluate_run``."""


if not TYPE_CHECKING:  # with __getattr__ a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name in _FOLDER_OF_NAME:
            folder = import_module(f".{_FOLDER_OF_NAME[name]}", __name__)
            return getattr(folder, _NAME_IN_FOLDER.get(name, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
