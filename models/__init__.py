"""The model class, building models from configs, and converting and transferring weights (layer 5)."""

from ..structures import InputConfig
from .build import ModelConfig, build_model, resolve_input
from .keys.torchvision import from_torchvision_detector, from_torchvision_segmenter
from .model import Model, PredictingModel
from .preprocess import Preprocess
from .semantic_inference import SemanticInference, predict_semantic
from .transfer import describe_class_mapping, transfer_weights

__all__ = [
    "InputConfig",
    "Model",
    "ModelConfig",
    "PredictingModel",
    "Preprocess",
    "SemanticInference",
    "build_model",
    "describe_class_mapping",
    "from_torchvision_detector",
    "from_torchvision_segmenter",
    "predict_semantic",
    "resolve_input",
    "transfer_weights",
]
