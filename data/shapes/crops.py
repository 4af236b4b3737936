"""A classification data set of crops around single shapes in generated scenes; a crop is drawn when it is read."""

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
_STREAM = 1  # part of the seed, so that a crop has other random numbers than the scene with the same index


class ShapeCropsConfig(DatasetConfig):
    """The options of the data set ``shape_crops``. Crop ``i`` does not depend on ``count``."""

    name: Literal["shape_crops"] = "shape_crops"
    split: Split
    count: int = Field(default=10_000, gt=0)
    """The number of images."""
    size: int = Field(default=48, ge=16, le=256)
    """The height and width of a crop in pixels."""
    seed: Seed = 0

    def classes(self) -> tuple[str, ...]:
        """Return the names of the shapes."""
        return CLASS_NAMES


@DATASETS.register("shape_crops", ShapeCropsConfig)
class ShapeCrops(Dataset):
    """A classification data set of images of one of the eight shapes, with parts of other shapes around it."""

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
        """Return the record of an image with its label."""
        image, label = draw_crop(self.config, index)
        return Record(image, label=label, image_id=index)

    def read_image(self, index: int) -> Record:
        """Return the record of an image without its label."""
        return Record(draw_crop(self.config, index)[0], image_id=index)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the label of the image to its record."""
        return replace(record, label=draw_crop(self.config, index)[1])

    def ground_truth(self) -> dict[int, int]:
        """Return a dict from image id to label."""
        return self._labels

    @functools.cached_property
    def _labels(self) -> dict[int, int]:
        return {index: draw_crop(self.config, index)[1] for index in range(len(self))}


def draw_crop(config: ShapeCropsConfig, index: int) -> tuple[UInt8[ndarray, "_ _ 3"], int]:
    """Draw the crop with this index, randomly shifted, scaled and rotated; return it and its label."""
    generator = PortableGenerator(config.seed, SPLITS.index(config.split), index, _STREAM)
    scene = _draw_scene(config, generator)
    obj = generator.choice(_single_objects(scene))
    left, top, right, bottom = obj.box
    side = max(right - left, bottom - top) * generator.integer(100, 170) / 100
    x, y = ((low + high) / 2 + side * generator.integer(-10, 10) / 100 for low, high in ((left, right), (top, bottom)))
    scale = config.size / side
    transform = np.array([[scale, 0, config.size / 2 - scale * x], [0, scale, config.size / 2 - scale * y]])
    crop = cv2.warpAffine(
        scene.image, transform, (config.size, config.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    crop = np.rot90(crop, generator.integer(0, 3))
    return np.ascontiguousarray(crop[:, ::-1] if generator.bernoulli(50) else crop), obj.label


def _draw_scene(config: ShapeCropsConfig, generator: PortableGenerator) -> Scene:
    """Draw scenes until one has an object to crop; some scenes are empty or have only a crowd."""
    while True:
        scene = draw_scene(_SCENE, config.seed, config.split, generator.integer(0, _LAST_SCENE))
        if _single_objects(scene):
            return scene


def _single_objects(scene: Scene) -> list[SceneObject]:
    return [obj for obj in scene.objects if not obj.crowd]
