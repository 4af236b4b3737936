"""The transform from a decoded image to a sample, based on albumentations, and the registry of transforms."""

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
    """Base class of the configs of transforms."""

    boxes_from_masks: bool = False
    """After the transform, compute the box of an object with a mask from its visible pixels, and drop it if none is
    visible (as detectron2 does after crops); otherwise boxes are only clipped (torchvision)."""

    def output_short_side(self) -> int:
        """Return the maximum length in pixels to which the short side of the full image is resized, at a scale of 1."""
        return 1


class Transform:
    """A sequence of albumentations steps, whose random numbers depend only on (seed, epoch, index, repeat).

    All fields of the objects and the semantic map are transformed with the image. Boxes are clipped to the image, and
    objects with no visible box are dropped. Padding of a semantic map is 255. With ``boxes_from_masks`` an object with
    a mask gets the box of its visible pixels and is dropped if there are none, unless its mask was empty before the
    transform.
    """

    def __init__(self, seed: int, steps: Sequence[A.BasicTransform], boxes_from_masks: bool = False) -> None:
        self.seed, self.boxes_from_masks = seed, boxes_from_masks
        boxes = A.BboxParams(format="pascal_voc", label_fields=["rows"], clip=True)
        points = A.KeypointParams(format="xy", remove_invisible=False)
        self._compose = A.Compose(list(steps), bbox_params=boxes, keypoint_params=points)

    def __call__(self, record: Record, epoch: int, index: int, repeat: int = 0) -> Sample:
        """Transform a record to the sample of a data set index in an epoch.

        ``repeat`` counts the earlier samples of this index in the epoch.
        """
        return to_sample(self.move(record, self.seed_sequence(epoch, index, repeat)))

    def seed_sequence(self, epoch: int, index: int, repeat: int = 0) -> np.random.SeedSequence:
        """Return the seed of the random numbers of a sample."""
        return np.random.SeedSequence((self.seed, epoch, index, repeat))

    def move(self, record: Record, seed: np.random.SeedSequence) -> Record:
        """Apply the steps to the image of a record and to its annotations."""
        self._compose.set_random_seed(int(seed.generate_state(1)[0]))
        carrier = Carrier(_NO_OBJECTS if record.objects is None else record.objects)
        targets = carrier.targets()
        if record.semantic is not None:
            targets["mask"] = record.semantic
        result = self._compose(image=record.image, **targets)
        return replace(
            record,
            image=result["image"],
            objects=None if record.objects is None else self._restore_objects(record.objects, carrier, result),
            semantic=None if record.semantic is None else result["mask"],
            original_size=record.full_size,
        )

    def _restore_objects(self, objects: Objects, carrier: Carrier, result: dict[str, Any]) -> Objects:
        """Return the transformed objects that are still visible; ``objects`` are those before the transform."""
        transformed = carrier.restore(result)
        if not self.boxes_from_masks:
            return keep_visible(transformed)
        fitted = has_visible_mask(objects)[visible_rows(transformed.boxes)]
        return fit_boxes_to_masks(keep_visible(transformed), fitted, result["image"].shape[:2])


TRANSFORMS: Registry[Transform] = Registry("transform")
"""Transforms by name; builders take ``(seed, config)``."""


def build_transform(config: PartConfig, seed: int = 0) -> Transform:
    """Build the transform of a config; ``seed`` is the seed of its random numbers."""
    return TRANSFORMS.build(config, seed)
