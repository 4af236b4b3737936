"""From a decoded image to a sample: albumentations for training and evaluation alike."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...structures import PartConfig, Registry
from ..polygons import polygon_vertices, with_vertices
from ..types import Objects, Record, Sample
from .sample import to_sample
from .visible import fit_boxes_to_masks, has_visible_mask, visible_rows

_IGNORED = -1
_NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


class TransformConfig(PartConfig):
    """What is done to an image and its truth."""

    boxes_from_masks: bool = False
    """What is seen of an object with a mask gets the box of its visible pixels, and an object of which none is visible
    is dropped (detectron2, where it crops); otherwise its box is cut as it is (torchvision)."""

    def output_short_side(self) -> int:
        """The most pixels that it gives the short side of a whole image, where it draws no scale of its own."""
        return 1


class Transform:
    """Steps of albumentations; what happens to an image is a function of (seed, epoch, index, repeat) alone.

    Boxes, masks, outlines and semantic maps go through the same steps. Boxes are clipped to the image, and an object of
    whose box it shows nothing is dropped; what a step adds to a semantic map is 255. With ``boxes_from_masks`` the box
    of an object with a mask or an outline is that of what is left of it, and one that is left with nothing is dropped;
    where a mask was empty before, the box is all that is known.
    """

    def __init__(self, seed: int, steps: Sequence[A.BasicTransform], boxes_from_masks: bool = False) -> None:
        self.seed, self.boxes_from_masks = seed, boxes_from_masks
        boxes = A.BboxParams(format="pascal_voc", label_fields=["labels", "rows"], clip=True)
        points = A.KeypointParams(format="xy", remove_invisible=False)  # those of outlines
        self._compose = A.Compose(list(steps), bbox_params=boxes, keypoint_params=points)

    def __call__(self, record: Record, epoch: int, index: int, repeat: int = 0) -> Sample:
        """The sample that ``index`` gives in ``epoch``, of several in one epoch the one of this number."""
        return to_sample(self.move(record, self.randomness(epoch, index, repeat)))

    def randomness(self, epoch: int, index: int, repeat: int = 0) -> np.random.SeedSequence:
        """What decides about that sample."""
        return np.random.SeedSequence((self.seed, epoch, index, repeat))

    def move(self, record: Record, randomness: np.random.SeedSequence) -> Record:
        """The image after the steps, with what they leave of its truth."""
        self._compose.set_random_seed(int(randomness.generate_state(1)[0]))
        result = self._compose(image=record.image, **_albumentations_targets(record))
        return replace(
            record,
            image=result["image"],
            objects=None if record.objects is None else _objects(record.objects, result, self.boxes_from_masks),
            semantic=None if record.semantic is None else result["mask"],
            original_size=record.full_size,
        )


def _albumentations_targets(record: Record) -> dict[str, Any]:
    """What albumentations is to change beside the image. Objects come first, then ignored regions."""
    objects = record.objects or _NO_OBJECTS
    labels = np.concatenate([objects.labels, np.full(len(objects.ignored), _IGNORED)])
    truth: dict[str, Any] = {
        "bboxes": np.concatenate([objects.boxes, objects.ignored]),
        "labels": labels,
        "rows": np.arange(len(labels)),
    }
    if objects.masks is not None and len(objects.masks):
        truth["masks"] = objects.masks
    if objects.polygon_masks is not None:
        truth["keypoints"] = polygon_vertices(objects.polygon_masks)
    if record.semantic is not None:
        truth["mask"] = record.semantic
    return truth


def _objects(objects: Objects, result: dict[str, Any], boxes_from_masks: bool) -> Objects:
    """The objects that a step left something of."""
    boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    seen = visible_rows(boxes)
    boxes, labels = boxes[seen], np.asarray(result["labels"], np.int64)[seen]
    counted = labels != _IGNORED
    rows = np.asarray(result["rows"], np.int64)[seen][counted]
    masks = None if objects.masks is None else _masks_of(result, rows)
    polygon_masks = None
    if objects.polygon_masks is not None:
        moved = with_vertices(objects.polygon_masks, result["keypoints"])
        polygon_masks = tuple(moved[row] for row in rows.tolist())
    left = Objects(boxes[counted], labels[counted], boxes[~counted], masks, polygon_masks)
    if not boxes_from_masks:
        return left
    return fit_boxes_to_masks(left, has_visible_mask(objects)[rows], result["image"].shape[:2])


def _masks_of(result: dict[str, Any], rows: Int64[ndarray, " k"]) -> UInt8[ndarray, "k h w"]:
    """The masks of some rows; an image without objects has none to transform."""
    if not len(rows):
        return np.zeros((0, *result["image"].shape[:2]), np.uint8)
    masks = np.asarray(result["masks"])
    left = masks if len(rows) == len(masks) else masks[rows]  # rows ascend, so as many are all of them
    return (left == 1).view(np.uint8)  # what a step adds is 255


TRANSFORMS: Registry[Transform] = Registry("transform")
"""Transforms by name; an entry builds from ``(seed, config)``."""


def build_transform(config: PartConfig, seed: int = 0) -> Transform:
    """The transform that a config describes."""
    return TRANSFORMS.build(config, seed)
