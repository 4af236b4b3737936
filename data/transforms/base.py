"""From a decoded image to a sample: albumentations for training and evaluation alike."""

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...structures import Instances, PartConfig, Registry
from ..outlines import move_outlines, outline_points, pad_outlines
from ..types import Objects, Record, Sample, Target, Truth
from .visible import boxes_of_masks, boxes_of_outlines

_IGNORED = -1
_NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


class Transform:
    """Steps of albumentations; what happens to an image is a function of (seed, epoch, index, repeat) alone.

    Boxes, masks, outlines and semantic maps go through the same steps. Boxes are clipped to the image, and an object of
    whose box it shows nothing is dropped; what a step adds to a semantic map is 255. With ``boxes_from_masks`` the box
    of an object with a mask or an outline is that of what is left of it, and one that is left with nothing is dropped.
    """

    def __init__(self, seed: int, steps: Sequence[A.BasicTransform], boxes_from_masks: bool = False) -> None:
        self.seed, self.boxes_from_masks = seed, boxes_from_masks
        boxes = A.BboxParams(format="pascal_voc", label_fields=["labels", "rows"], clip=True)
        points = A.KeypointParams(format="xy", remove_invisible=False)  # those of outlines
        self._compose = A.Compose(list(steps), bbox_params=boxes, keypoint_params=points)

    def __call__(self, record: Record, epoch: int, index: int, repeat: int = 0) -> Sample:
        """The sample that ``index`` gives in ``epoch``, of several in one epoch the one of this number."""
        entropy = np.random.SeedSequence((self.seed, epoch, index, repeat))
        self._compose.set_random_seed(int(entropy.generate_state(1)[0]))
        result = self._compose(image=record.image, **_truth_of(record))
        image = torch.from_numpy(np.ascontiguousarray(result["image"].transpose(2, 0, 1)))
        height, width = record.image.shape[:2]
        return Sample(
            image, _target(record, result, self.boxes_from_masks), record.image_id, (height, width), record.file
        )


def _truth_of(record: Record) -> dict[str, Any]:
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
    if objects.outlines is not None:
        truth["keypoints"] = outline_points(objects.outlines)
    if record.semantic is not None:
        truth["mask"] = record.semantic
    return truth


def _target(record: Record, result: dict[str, Any], boxes_from_masks: bool) -> Target | None:
    """What is left of a record's truth; by task where there are several kinds."""
    truths: dict[str, Truth] = {}
    if record.objects is not None:
        truths["detection"] = _instances(record.objects, result, boxes_from_masks)
    if record.semantic is not None:
        truths["semantic"] = torch.from_numpy(result["mask"].astype(np.int64))
    if record.label is not None:
        truths["classification"] = torch.tensor(record.label)
    return truths if len(truths) > 1 else next(iter(truths.values()), None)


def _instances(objects: Objects, result: dict[str, Any], boxes_from_masks: bool) -> Instances:
    """The objects that a step left something of."""
    boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    labels = np.asarray(result["labels"], np.int64)
    counted = labels != _IGNORED
    rows = np.asarray(result["rows"], np.int64)[counted]
    ignored, boxes, labels = boxes[~counted], boxes[counted], labels[counted]
    masks = outlines = None
    seen = np.arange(len(rows))
    if objects.masks is not None:
        masks = _masks_of(result, rows) == 1  # what a step adds is 255
    if objects.outlines is not None:
        moved = move_outlines(objects.outlines, result["keypoints"])
        outlines = [moved[row] for row in rows.tolist()]
    if boxes_from_masks and (masks is not None or outlines is not None):
        size = result["image"].shape[:2]
        boxes = boxes_of_masks(masks) if masks is not None else boxes_of_outlines(outlines or (), size)
        seen = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return Instances(
        torch.from_numpy(boxes[seen]),
        torch.from_numpy(labels[seen]),
        None if masks is None else torch.from_numpy(masks[seen]),
        torch.from_numpy(ignored),
        None if outlines is None else pad_outlines([outlines[row] for row in seen.tolist()]),
    )


def _masks_of(result: dict[str, Any], rows: Int64[ndarray, " k"]) -> UInt8[ndarray, "k h w"]:
    """The masks of some rows; an image without objects has none to transform."""
    if not len(rows):
        return np.zeros((0, *result["image"].shape[:2]), np.uint8)
    return np.asarray(result["masks"])[rows]


transforms: Registry[Transform] = Registry("transform")
"""Transforms by name; an entry builds from ``(seed, config)``."""


def build_transform(config: PartConfig, seed: int = 0) -> Transform:
    """The transform that a config describes."""
    return transforms.build(config, seed)
