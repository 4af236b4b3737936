"""Rules for the size of the images and their augmentation."""

from collections.abc import Iterable

import numpy as np

from ....data import ColorJitterConfig, ResizeConfig, ScaledCropConfig
from ...config import ExperimentConfig
from ..choices import Choice
from ..facts import DataFacts

ASPECT = 1333 / 800
"""The limit of the long side over the short side, as on COCO."""
SMALLEST_REACHED = 32 / 2**0.5
"""The side in pixels of the smallest square that has an IoU of 0.5 with an anchor of 32 pixels."""
SMALL_BOXES = 0.1
"""The fraction of the boxes that may be smaller than that."""
LARGEST_ENLARGEMENT = 2.0
"""Images are enlarged by this factor at most: it adds no detail."""
TRAINING_SCALES = (0.8, 0.85, 0.9, 0.95, 1.0)
"""The short sides for training as multiples of that for evaluation; detectron2 trains at 640 to 800 for 800."""
FEW_IMAGES = 1000
"""Below this number of images their colors are changed."""
FEW_VIEWS = 10
"""A training that shows each image fewer times than this changes neither its size nor its colors. Trainings with 2.6
and 3.9 views learn faster so (docs/learning.md); the default lengths, with 12 views and more, were not compared."""
LARGEST_CROP = 768
"""The longest side in pixels of the crops on which semantic heads are trained."""


def resize_images(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the size of images in evaluations of a detector: their own size, larger if objects are small.

    Resizing 480-pixel photos to 800 takes 2.8 times the time. Stock anchors reach all boxes of BCCD at its own 480
    pixels; on COCO photos of 427 pixels they reach 75 % at 480 and 83 % at 800, since a tenth of the objects is smaller
    than 13 pixels. So small objects are enlarged until the smallest anchor reaches them.
    """
    val = config.val.transform
    if not (isinstance(config.train.transform, ResizeConfig) and isinstance(val, ResizeConfig)):
        return
    own, limit = facts.short_side(), max(val.short_sides)
    wanted, reason = float(own), f"the short side of the images is {own}"
    if len(facts.boxes):
        small = float(np.quantile(np.sqrt(facts.boxes.prod(axis=1)), SMALL_BOXES))
        enlargement = min(max(1.0, SMALLEST_REACHED / max(small, 1e-3)), LARGEST_ENLARGEMENT)
        wanted *= enlargement
        if enlargement > 1:
            reason += f", and {SMALL_BOXES:.0%} of the objects are smaller than {small:.0f} pixels"
    if wanted > limit:
        wanted, reason = limit, f"{reason}; not above the default, for the memory"
    yield Choice("val.transform.short_sides", (round(wanted),), reason)


def limit_long_side(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the limit of the long side in evaluations of a detector, in proportion to the short side."""
    val = config.val.transform
    if isinstance(config.train.transform, ResizeConfig) and isinstance(val, ResizeConfig):
        long_side = round(max(val.short_sides) * ASPECT)
        yield Choice("val.transform.long_side", long_side, "on COCO it is 1333 for a short side of 800")


def resize_training_images(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the sizes of images for the training of a detector: 0.8 to 1 times that of evaluations.

    A very short training gets the size of evaluations only, see ``FEW_VIEWS``.
    """
    train, val = config.train.transform, config.val.transform
    if not (isinstance(train, ResizeConfig) and isinstance(val, ResizeConfig)):
        return
    short = max(val.short_sides)
    sides = tuple(dict.fromkeys(round(short * scale) for scale in TRAINING_SCALES))
    reason = f"training takes {TRAINING_SCALES[0]:g} to 1 times the size of evaluations"
    if _count_views(facts, config) < FEW_VIEWS:
        sides, reason = (short,), f"each image is seen fewer than {FEW_VIEWS} times, at the size of evaluations"
    yield Choice("train.transform.short_sides", sides, reason)
    yield Choice("train.transform.long_side", val.long_side, "it is as for evaluations")


def crop_class_maps(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the size of images and crops for semantic segmentation: that of the images, up to a limit.

    CamVid's 360 x 480 pixels are used in full (``deeplabv3plus_r50_camvid``).
    """
    train, val = config.train.transform, config.val.transform
    if not (isinstance(train, ScaledCropConfig) and isinstance(val, ResizeConfig)):
        return
    height, width = facts.typical_size()
    scale = min(1.0, LARGEST_CROP / max(height, width))
    crop = (round(height * scale), round(width * scale))
    reason = f"the images have about {width} x {height} pixels"
    yield Choice("train.transform.size", crop, reason)
    yield Choice("train.transform.short_side", min(crop), "a scale of 1 is the size for evaluation")
    yield Choice("val.transform.short_sides", (min(crop),), reason)
    yield Choice("val.transform.long_side", max(val.long_side, 4 * min(crop)), "no image is made smaller")


def flip_images(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Flip half of the training images, as every published detector."""
    if isinstance(config.train.transform, ResizeConfig | ScaledCropConfig):
        yield Choice("train.transform.flip", 0.5, "a mirrored image is another example; 0 if left and right matter")


def jitter_colors(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Change the colors of the training images if there are few of them, and each is seen often.

    Color changes, crops and flips together gain SSD 8.8 points on VOC (1512.02325 table 2).
    """
    if not isinstance(config.train.transform, ResizeConfig | ScaledCropConfig):
        return
    if facts.train_images < FEW_IMAGES and _count_views(facts, config) >= FEW_VIEWS:
        jitter = ColorJitterConfig(brightness=0.2, contrast=0.2, saturation=0.2)
        yield Choice("train.transform.color_jitter", jitter, f"there are fewer than {FEW_IMAGES} images")


def _count_views(facts: DataFacts, config: ExperimentConfig) -> float:
    """Return how many times a training shows each image."""
    return config.recipe.schedule.steps * config.recipe.batch_size / facts.train_images
