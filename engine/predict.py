"""A trained model on single images."""

import os
from typing import Any

import torch
from jaxtyping import UInt8
from numpy import ndarray

from ..data import Record, build_transform, collate
from .checkpoints.checkpoint import open_checkpoint
from .checkpoints.restore import load_checkpoint_model
from .tasks import pick_task


class Predictor:
    """Image -> what its task predicts, in the image's own pixels; prepared as the run's validation images were."""

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "auto") -> None:
        checkpoint = open_checkpoint(path)
        self.model = load_checkpoint_model(checkpoint, device)
        self.task = pick_task(self.model.head, checkpoint.classes, checkpoint.config.evaluation.inference)
        self._prepare = build_transform(checkpoint.config.val.transform)

    def __call__(self, image: UInt8[ndarray, "h w 3"]) -> Any:
        """What is predicted of one image (RGB): ``Detections``, a map of classes, a ``Classification``."""
        sample = self._prepare(Record(image), epoch=0, index=0)
        return self.task.predict(self.model, collate([sample], self.model.size_divisor))[0]
