"""Mixup for detection (1710.09412, 1902.04103): two images shine through each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from ..dataset import Dataset
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, compose_canvas, concatenate_objects, objects_of


class MixupConfig(MixConfig):
    """The default is 1902.04103's best."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(default=1.5, gt=0)
    """The first image's share of every pixel is drawn from Beta(alpha, alpha): the higher, the nearer to half."""


@MIXES.register("mixup", MixupConfig)
class Mixup(Mix):
    """Pixels are weighted means, and all objects and regions to ignore of both images are there.

    The images share their top left corner; the sample is as high and as wide as the larger, and the smaller one has
    the mean colour around it. Objects weigh the same however faint they are, as in YOLOX (2107.08430), where 1902.04103
    weights their loss.
    """

    def __init__(self, dataset: Dataset, config: MixupConfig) -> None:
        super().__init__(dataset, config, partners=1, tasks=("detection",))
        self.alpha = config.alpha

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        """Both on one canvas."""
        height, width = np.max([record.image.shape[:2] for record in records], axis=0).tolist()
        share = generator.beta(self.alpha, self.alpha)
        first, second = (compose_canvas([Piece(record)], (height, width)) for record in records)
        image = cv2.addWeighted(first.image, share, second.image, 1 - share, 0)
        return replace(first, image=image, objects=concatenate_objects([objects_of(first), objects_of(second)]))
