"""From a decoded image to a sample: albumentations, for training and evaluation alike."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np

from ...structures import PartConfig, Registry
from ..box_clipping import visible_rows
from ..objects import Objects
from ..types import Record, Sample
from .carrier import Carrier
from .sample import to_sample
from .visible import fit_boxes_to_masks, has_visible_mask, keep_visible

_NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


class TransformConfig(PartConfig):
    """The steps that an image and its ground truth go through."""

    boxes_from_masks: bool = False
    """What is seen of an object with a mask gets the box of its visible pixels, and an object of which none is visible
    is dropped (detectron2, where it crops); otherwise its box is clipped as it is (torchvision)."""

    def output_short_side(self) -> int:
        """Return the most pixels that the short side of a whole image gets, or would at a scale of 1."""
        return 1


class Transform:
    """Steps of albumentations; what happens to an image is a function of (seed, epoch, index, repeat) alone.

    Every field of the objects, and the semantic map, go through the same steps. Boxes are clipped to the image, and an
    object of whose box it shows nothing is dropped; what a step adds to a semantic map is 255. With
    ``boxes_from_masks`` the box of an object with a mask is that of what is left of it, and one that is left with
    nothing is dropped; where a mask was empty before, the box is all that is known.
    """

    def __init__(self, seed: int, steps: Sequence[A.BasicTransform], boxes_from_masks: bool = False) -> None:
        self.seed, self.boxes_from_masks = seed, boxes_from_masks
        boxes = A.BboxParams(format="pascal_voc", label_fields=["rows"], clip=True)
        points = A.KeypointParams(format="xy", remove_invisible=False)
        self._compose = A.Compose(list(steps), bbox_params=boxes, keypoint_params=points)

    def __call__(self, record: Record, epoch: int, index: int, repeat: int = 0) -> Sample:
        """Return the sample of an index in an epoch; ``repeat`` numbers those that one epoch has of it."""
        return to_sample(self.move(record, self.seed_sequence(epoch, index, repeat)))

    def seed_sequence(self, epoch: int, index: int, repeat: int = 0) -> np.random.SeedSequence:
        """Return the seed of all that is drawn for that sample."""
        return np.random.SeedSequence((self.seed, epoch, index, repeat))

    def move(self, record: Record, seed: np.random.SeedSequence) -> Record:
        """Return the image after the steps, with what they leave of its ground truth."""
        self._compose.set_random_seed(int(seed.generate_state(1)[0]))
        carrier = Carrier(_NO_OBJECTS if record.objects is None else record.objects)
        targets = carrier.targets()
        if record.semantic is not None:
            targets["mask"] = record.semantic
        result = self._compose(image=record.image, **targets)
        return replace(
            record,
            image=result["image"],
            objects=None if record.objects is None else self._moved_objects(record.objects, carrier, result),
            semantic=None if record.semantic is None else result["mask"],
            original_size=record.full_size,
        )

    def _moved_objects(self, objects: Objects, carrier: Carrier, result: dict[str, Any]) -> Objects:
        """Return the objects that the steps left something of."""
        moved = carrier.restore(result)
        if not self.boxes_from_masks:
            return keep_visible(moved)
        fitted = has_visible_mask(objects)[visible_rows(moved.boxes)]
        return fit_boxes_to_masks(keep_visible(moved), fitted, result["image"].shape[:2])


TRANSFORMS: Registry[Transform] = Registry("transform")
"""Transforms by name; an entry builds from ``(seed, config)``."""


def build_transform(config: PartConfig, seed: int = 0) -> Transform:
    """Return the transform that a config describes."""
    return TRANSFORMS.build(config, seed)
