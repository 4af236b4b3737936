"""Mixup for detection (1710.09412, 1902.04103): the weighted mean of two images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from ..dataset import Dataset
from ..objects import concatenate_objects
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, compose_canvas, objects_of


class MixupConfig(MixConfig):
    """Options of mixup; the default is the best setting of 1902.04103."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(default=1.5, gt=0)
    """The weight of the first image is drawn from Beta(alpha, alpha); higher values keep it closer to 0.5."""


@MIXES.register("mixup", MixupConfig)
class Mixup(Mix):
    """Blend two images as a weighted mean, and join their objects and ignore regions.

    The images are aligned at the top left and padded with ImageNet's mean color to the larger height and width. All
    objects have the same loss weight, as in YOLOX (2107.08430); 1902.04103 weights the loss by the image's weight.
    """

    def __init__(self, dataset: Dataset, config: MixupConfig) -> None:
        super().__init__(dataset, config, partners=1, tasks=("detection",))
        self.alpha = config.alpha

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        height, width = np.max([record.image.shape[:2] for record in records], axis=0).tolist()
        weight = generator.beta(self.alpha, self.alpha)
        first, second = (compose_canvas([Piece(record)], (height, width)) for record in records)
        image = cv2.addWeighted(first.image, weight, second.image, 1 - weight, 0)
        return replace(first, image=image, objects=concatenate_objects([objects_of(first), objects_of(second)]))
