"""From a decoded image to a sample: albumentations for training and evaluation alike."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import: no look at the network for a newer version

from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import Field

from ..structures import Config, Instances
from .types import Record, Sample

_IGNORED = -1


class TransformConfig(Config):
    """Defaults are the field's for COCO at evaluation; training adds more short sides and a flip."""

    short_sides: tuple[int, ...] = Field(default=(800,), min_length=1)
    """The short side gets one of these, in pixels, drawn anew each time."""
    long_side: int = Field(default=1333, gt=0)
    """But the long side gets no longer than this."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""


class Transform:
    """Resize and flip; what happens to an image is a function of (seed, epoch, index) alone."""

    def __init__(self, config: TransformConfig, seed: int) -> None:
        self.seed = seed
        self._compose = A.Compose(
            [ResizeShortSide(config.short_sides, config.long_side), A.HorizontalFlip(p=config.flip)],
            bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"], clip=True),
        )

    def __call__(self, record: Record, epoch: int, index: int) -> Sample:
        """The sample that ``index`` gives in ``epoch``."""
        entropy = np.random.SeedSequence((self.seed, epoch, index))
        self._compose.set_random_seed(int(entropy.generate_state(1)[0]))
        ignored = np.full(len(record.ignored), _IGNORED)
        result = self._compose(
            image=record.image,
            bboxes=np.concatenate([record.boxes, record.ignored]),
            labels=np.concatenate([record.labels, ignored]),
        )
        image = np.ascontiguousarray(result["image"].transpose(2, 0, 1))
        boxes = torch.as_tensor(np.asarray(result["bboxes"], np.float32).reshape(-1, 4))
        labels = torch.as_tensor(np.asarray(result["labels"], np.int64))
        objects = labels != _IGNORED
        target = Instances(boxes[objects], labels[objects], ignored=boxes[~objects])
        height, width = record.image.shape[:2]
        return Sample(torch.from_numpy(image), target, record.image_id, (height, width), record.file)


class ResizeShortSide(A.DualTransform):
    """Resize so that the short side has a drawn length, or the long side its limit, whichever is smaller.

    None of albumentations' own resizes has both bounds. Sizes are rounded to nearest, as detectron2 does; bilinear
    without antialiasing, as torchvision's detectors resize.
    """

    def __init__(self, short_sides: tuple[int, ...], long_side: int) -> None:
        super().__init__(p=1.0)
        self.short_sides, self.long_side = short_sides, long_side

    def get_params(self) -> dict[str, Any]:
        """The drawn length."""
        return {"short_side": self.py_random.choice(self.short_sides)}

    def apply(self, img: UInt8[ndarray, "h w c"], short_side: int, **params: Any) -> UInt8[ndarray, "_ _ c"]:
        """Resize the pixels."""
        height, width = img.shape[:2]
        scale = min(short_side / min(height, width), self.long_side / max(height, width))
        size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
        return cv2.resize(img, size, interpolation=cv2.INTER_LINEAR)

    def apply_to_bboxes(self, bboxes: ndarray, **params: Any) -> ndarray:
        """Albumentations hands boxes over in shares of the image, which a resize leaves as they are."""
        return bboxes

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """For albumentations' own printing of a pipeline."""
        return ("short_sides", "long_side")
