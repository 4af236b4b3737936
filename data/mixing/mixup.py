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
    """How two images are weighted; the default is the best of 1902.04103."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(default=1.5, gt=0)
    """The first image's weight is drawn from Beta(alpha, alpha): the higher alpha is, the nearer to a half."""


@MIXES.register("mixup", MixupConfig)
class Mixup(Mix):
    """Two images in weighted mean, with all objects and regions to ignore of both.

    The images share their top left corner; the sample is as high and as wide as the larger, and the smaller one has
    the mean colour around it. Objects weigh the same however faint they are, as in YOLOX (2107.08430), where 1902.04103
    weights their loss.
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
