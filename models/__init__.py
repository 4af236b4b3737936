"""The model class, building models from configs, and converting and transferring weights (layer 5)."""

from ..structures import InputConfig
from .build import ModelConfig, build_model, resolve_input
from .detection_inference import DetectionInference, ViewConfig, predict_detections, predict_views
from .keys.torchvision import from_torchvision_detector, from_torchvision_segmenter
from .model import Model, PredictingModel
from .preprocess import Preprocess
from .semantic_inference import SemanticInference, predict_semantic, window_starts
from .transfer import describe_class_mapping, transfer_weights

__all__ = [
    "DetectionInference",
    "InputConfig",
    "Model",
    "ModelConfig",
    "PredictingModel",
    "Preprocess",
    "SemanticInference",
    "ViewConfig",
    "build_model",
    "describe_class_mapping",
    "from_torchvision_detector",
    "from_torchvision_segmenter",
    "predict_detections",
    "predict_semantic",
    "predict_views",
    "resolve_input",
    "transfer_weights",
    "window_starts",
]
