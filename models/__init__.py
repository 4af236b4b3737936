"""Floor 5: the one ``Model``, and building it from a config."""

from ..structures import InputConfig
from .build import ModelConfig, build_model, resolve_input
from .convert import from_torchvision_detector
from .model import Model
from .preprocess import Preprocess

__all__ = [
    "InputConfig",
    "Model",
    "ModelConfig",
    "Preprocess",
    "build_model",
    "from_torchvision_detector",
    "resolve_input",
]
