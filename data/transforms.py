"""From a decoded image to a sample: albumentations for training and evaluation alike."""

from collections.abc import Sequence

import albumentations as A
import numpy as np
import torch
from numpy import ndarray

from ..structures import Instances, PartConfig, Registry
from .types import Objects, Record, Sample

_IGNORED = -1
_NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


class Transform:
    """Steps of albumentations; what happens to an image is a function of (seed, epoch, index) alone.

    Boxes go through the same steps; they are clipped to the image, and one of which it shows nothing is dropped.
    """

    def __init__(self, seed: int, steps: Sequence[A.BasicTransform]) -> None:
        self.seed = seed
        boxes = A.BboxParams(format="pascal_voc", label_fields=["labels"], clip=True)
        self._compose = A.Compose(list(steps), bbox_params=boxes)

    def __call__(self, record: Record, epoch: int, index: int) -> Sample:
        """The sample that ``index`` gives in ``epoch``."""
        entropy = np.random.SeedSequence((self.seed, epoch, index))
        self._compose.set_random_seed(int(entropy.generate_state(1)[0]))
        objects = _NO_OBJECTS if record.objects is None else record.objects
        ignored = np.full(len(objects.ignored), _IGNORED)
        result = self._compose(
            image=record.image,
            bboxes=np.concatenate([objects.boxes, objects.ignored]),
            labels=np.concatenate([objects.labels, ignored]),
        )
        image = torch.from_numpy(np.ascontiguousarray(result["image"].transpose(2, 0, 1)))
        if record.label is not None:
            target = torch.tensor(record.label)
        elif record.objects is not None:
            target = _instances(result["bboxes"], result["labels"])
        else:
            target = None
        height, width = record.image.shape[:2]
        return Sample(image, target, record.image_id, (height, width), record.file)


def _instances(boxes: ndarray, labels: Sequence[int] | ndarray) -> Instances:
    """Objects and ignored regions apart again."""
    all_boxes = torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4))
    all_labels = torch.as_tensor(np.asarray(labels, np.int64))
    objects = all_labels != _IGNORED
    return Instances(all_boxes[objects], all_labels[objects], ignored=all_boxes[~objects])


transforms: Registry[Transform] = Registry("transform")
"""Transforms by name; an entry builds from ``(seed, config)``."""


def build_transform(config: PartConfig, seed: int = 0) -> Transform:
    """The transform that a config describes."""
    return transforms.build(config, seed)
