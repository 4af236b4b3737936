"""A trained model on single images."""

import os

import torch
from jaxtyping import UInt8
from numpy import ndarray

from ..data import Record, Transform, collate
from ..structures import Detections
from .checkpoint import load_checkpoint_model, open_checkpoint
from .evaluate import detect_batch


class Predictor:
    """Image -> detections in its own pixels, prepared as the run's validation images were."""

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        checkpoint = open_checkpoint(path)
        self.model = load_checkpoint_model(checkpoint, device)
        self.class_names = checkpoint.class_names
        self.category_ids = checkpoint.category_ids
        self._prepare = Transform(checkpoint.config.val.transform, seed=0)

    def __call__(self, image: UInt8[ndarray, "h w 3"]) -> Detections:
        """What is found in one image (RGB)."""
        sample = self._prepare(Record.unlabelled(image), epoch=0, index=0)
        return detect_batch(self.model, collate([sample], self.model.size_divisor))[0]
