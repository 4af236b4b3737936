"""Floor 5: the one ``Model``, and building it from a config."""

from .build import ModelConfig, build_model
from .convert import from_torchvision_detector
from .model import Model
from .preprocess import InputConfig, Preprocess

__all__ = ["InputConfig", "Model", "ModelConfig", "Preprocess", "build_model", "from_torchvision_detector"]
