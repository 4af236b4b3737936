"""A generated classification data set with any number of classes, each of which is a random outline."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray
from pydantic import Field

from ..dataset import DATASETS, Dataset, DatasetConfig
from ..report import DataReport, Policy
from ..types import Record
from .background import add_camera_effects, draw_background
from .portable_generator import PortableGenerator
from .raster import FULL_COVER, fill
from .scene import SPLITS, Seed, Split
from .shape_polygons import SUBPIXEL, TURN, UNIT, Ring, heading, place_rings
from .textures import OPAQUE, blend, brightness, draw_texture

# Parts of the seed that make the random numbers of classes and images independent of those of scenes and crops.
_CLASS_STREAM, _IMAGE_STREAM = 2, 3
_POINTS = 64
_WAVES = range(2, 7)  # frequencies of the waves around an outline; a frequency of 1 would only shift it


class OutlinesConfig(DatasetConfig):
    """The options of the data set ``outlines``. Images do not depend on ``count``, nor outlines on ``split``."""

    name: Literal["outlines"] = "outlines"
    split: Split
    """The split; the same class has different images in the two splits."""
    classes_from: int = Field(default=0, ge=0)
    """The number of the first outline. Splits whose ranges of numbers are disjoint have no class in common."""
    num_classes: int = Field(default=100, gt=0)
    count: int = Field(default=5000, gt=0)
    """The number of images; image ``i`` is of class ``i % num_classes``."""
    size: int = Field(default=40, ge=16, le=256)
    """The height and width of an image in pixels."""
    seed: Seed = 0

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, such as ``outline 0``."""
        return tuple(f"outline {number}" for number in range(self.classes_from, self.classes_from + self.num_classes))


@DATASETS.register("outlines", OutlinesConfig)
class Outlines(Dataset):
    """A data set of images that show the outline of their class at a random position, size and direction.

    A random other outline covers a part of it. An image is drawn when it is read.
    """

    task: ClassVar[str] = "classification"

    def __init__(self, policy: Policy, config: OutlinesConfig) -> None:
        self.config = config
        self.class_names, self.category_ids = config.classes(), tuple(range(config.num_classes))
        self.image_ids = range(config.count)
        self.report = DataReport(policy, f"outlines drawn with seed {config.seed}", kinds=("images",))
        self.report.read["images"] = config.count

    def __len__(self) -> int:
        return self.config.count

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all images."""
        indices = np.arange(len(self))
        return np.stack([indices, indices % self.config.num_classes], axis=1)

    def read_image(self, index: int) -> Record:
        return Record(draw_outline_image(self.config, index), image_id=index)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the label of the image to its record."""
        return replace(record, label=index % self.config.num_classes)

    def ground_truth(self) -> dict[int, int]:
        """Return a dict from image id to label."""
        return {index: index % self.config.num_classes for index in range(len(self))}


def draw_outline_image(config: OutlinesConfig, index: int) -> UInt8[ndarray, "_ _ 3"]:
    """Draw an image by its index: the outline of its class, partly covered by a random other outline."""
    generator = PortableGenerator(config.seed, SPLITS.index(config.split), index, _IMAGE_STREAM)
    number = config.classes_from + index % config.num_classes
    size = config.size * SUBPIXEL
    image = draw_background(generator, config.size, config.size)
    ring = _outline(PortableGenerator(config.seed, number, _CLASS_STREAM))
    center = size * generator.integer(45, 55) // 100, size * generator.integer(45, 55) // 100
    _paint(image, ring, center, size * generator.integer(30, 42) // 100, generator)
    direction = generator.integer(0, TURN - 1)
    edge = heading(direction) * size * 48 // (100 * UNIT) + size // 2
    _paint(image, _outline(generator), (int(edge[0]), int(edge[1])), size * generator.integer(8, 20) // 100, generator)
    return add_camera_effects(generator, image)


def _outline(generator: PortableGenerator) -> Ring:
    """Return a random closed outline, whose radius is a sum of waves around the center."""
    angles = np.arange(_POINTS) * TURN // _POINTS
    radii = np.full(_POINTS, 85 * UNIT, np.int64)
    for waves in _WAVES:
        radii += generator.integer(0, 14) * heading(waves * angles + generator.integer(0, TURN - 1))[:, 0]
    return heading(angles) * (radii // 100)[:, None] // UNIT


def _paint(
    image: UInt8[ndarray, "h w 3"], ring: Ring, center: tuple[int, int], radius: int, generator: PortableGenerator
) -> None:
    """Fill an outline with a random texture, rotated by a random angle and clipped to the image."""
    placed = place_rings([ring], center, radius, generator.integer(0, TURN - 1))
    patch = fill(placed).crop(image.shape[0], image.shape[1])
    height, width = patch.cover.shape
    behind = image[patch.window].reshape(-1, 3).sum(axis=0, dtype=np.int64) // (height * width)
    colors = draw_texture(generator, height, width, brightness(behind))
    opacity = patch.cover[..., None].astype(np.int32) * OPAQUE // FULL_COVER
    image[patch.window] = blend(image[patch.window], colors, opacity)
