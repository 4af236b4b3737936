"""Single shapes as a classification set: squares cut out of generated scenes, drawn when they are read."""

import functools
from dataclasses import replace
from typing import ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import Field

from ..dataset import DATASETS, Dataset, DatasetConfig
from ..report import DataReport, Policy
from ..types import Record
from .portable_generator import PortableGenerator
from .scene import SPLITS, Scene, SceneConfig, SceneObject, Seed, Split, draw_scene
from .shape_polygons import CLASS_NAMES

_SCENE = SceneConfig(size=128)
_LAST_SCENE = 2**32 - 1
_STREAM = 1  # sets the dice of a crop apart from those of a scene


class ShapeCropsConfig(DatasetConfig):
    """Which crops these are; number ``i`` is the same whatever the count."""

    name: Literal["shape_crops"] = "shape_crops"
    split: Split
    count: int = Field(default=10_000, gt=0)
    size: int = Field(default=48, ge=16, le=256)
    """Pixels of each side."""
    seed: Seed = 0

    def classes(self) -> tuple[str, ...]:
        """The names of the shapes."""
        return CLASS_NAMES


@DATASETS.register("shape_crops", ShapeCropsConfig)
class ShapeCrops(Dataset):
    """Each image shows one of the eight shapes, among parts of others."""

    task: ClassVar[str] = "classification"

    def __init__(self, policy: Policy, config: ShapeCropsConfig) -> None:
        self.config = config
        self.class_names, self.category_ids = CLASS_NAMES, tuple(range(len(CLASS_NAMES)))
        self.image_ids = range(config.count)
        self.report = DataReport(policy, f"shapes drawn with seed {config.seed}", kinds=("images",))
        self.report.read["images"] = config.count

    def __len__(self) -> int:
        return self.config.count

    def read(self, index: int) -> Record:
        """The image and its label, which come out of one drawing."""
        image, label = draw_crop(self.config, index)
        return Record(image, label=label, image_id=index)

    def read_image(self, index: int) -> Record:
        """The image, drawn anew."""
        return Record(draw_crop(self.config, index)[0], image_id=index)

    def add_annotations(self, record: Record, index: int) -> Record:
        """With its label."""
        return replace(record, label=draw_crop(self.config, index)[1])

    def ground_truth(self) -> dict[int, int]:
        """The label of each image."""
        return self._labels

    @functools.cached_property
    def _labels(self) -> dict[int, int]:
        return {index: draw_crop(self.config, index)[1] for index in range(len(self))}


def draw_crop(config: ShapeCropsConfig, index: int) -> tuple[UInt8[ndarray, "_ _ 3"], int]:
    """The crop with that number, moved, scaled and turned; and the label of the object that it is about."""
    generator = PortableGenerator(config.seed, SPLITS.index(config.split), index, _STREAM)
    scene = _draw_scene(config, generator)
    thing = generator.choose(_countable(scene))
    left, top, right, bottom = thing.box
    side = max(right - left, bottom - top) * generator.roll(100, 170) / 100
    x, y = ((low + high) / 2 + side * generator.roll(-10, 10) / 100 for low, high in ((left, right), (top, bottom)))
    scale = config.size / side
    move = np.array([[scale, 0, config.size / 2 - scale * x], [0, scale, config.size / 2 - scale * y]])
    crop = cv2.warpAffine(
        scene.image, move, (config.size, config.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    crop = np.rot90(crop, generator.roll(0, 3))
    return np.ascontiguousarray(crop[:, ::-1] if generator.chance(50) else crop), thing.label


def _draw_scene(config: ShapeCropsConfig, generator: PortableGenerator) -> Scene:
    """A scene that has something to cut out; some are empty, or have a crowd only."""
    while True:
        scene = draw_scene(_SCENE, config.seed, config.split, generator.roll(0, _LAST_SCENE))
        if _countable(scene):
            return scene


def _countable(scene: Scene) -> list[SceneObject]:
    return [thing for thing in scene.objects if not thing.crowd]
