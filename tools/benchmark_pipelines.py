"""From files to tensors in several ways, on the same photos and objects: what ``benchmark-data`` times.

Each way reads a photo, makes bitmaps of its objects' masks, resizes, flips and gives tensors: boxes, labels, masks and
an image of bytes. (torchvision's references go on to floats; our models do that on their device.)
"""

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2
from pycocotools.coco import COCO
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from vertebra.data import CocoConfig, ResizeConfig, ScaledCropConfig, build_dataset, build_transform
from vertebra.data.types import FILL

Policy = Literal["resize", "jitter"]
SHORT, LONG, WINDOW, SCALES = 800, 1333, 1024, (0.1, 2.0)

Pipeline = Callable[[int, int], Any]
"""What makes a sample of a round's number and the image's."""


def build_pipelines(
    images: Path, annotations: Path, policy: Policy, decode_short_side: int | None = None
) -> tuple[Pipeline, Mapping[str, Pipeline], int]:
    """Return our pipeline, the others by name, and how many images there are, each with an object.

    ``decode_short_side`` is for ours; where it is given, ours without it is one of the others.
    """
    ours, ids = _ours(images, annotations, policy, decode_short_side)
    others = {} if decode_short_side is None else {"ours, decoded whole": _ours(images, annotations, policy)[0]}
    return ours, others | _theirs(images, annotations, ids, policy), len(ids)


def _theirs(images: Path, annotations: Path, ids: list[int], policy: Policy) -> dict[str, Pipeline]:
    return {
        "torchvision v2, PIL": _torchvision(images, annotations, ids, policy, v2.PILToTensor(), first=False),
        "torchvision v2, tensors": _torchvision(images, annotations, ids, policy, v2.ToImage(), first=True),
        "albumentations": _albumentations(images, annotations, ids, policy),
    }


def _ours(
    images: Path, annotations: Path, policy: Policy, decode_short_side: int | None = None
) -> tuple[Pipeline, list[int]]:
    files = {"images": images, "annotations": annotations, "decode_short_side": decode_short_side}
    dataset = build_dataset(CocoConfig(**files, masks=True, keep_empty=False), "skip")
    window = ScaledCropConfig(size=(WINDOW, WINDOW), scales=SCALES)
    resize = ResizeConfig(short_sides=(SHORT,), long_side=LONG, flip=0.5)
    transform = build_transform(resize if policy == "resize" else window)
    ids = [image_id for image_id in dataset.image_ids if isinstance(image_id, int)]
    return lambda number, index: transform(dataset.read(index), number, index), ids


def _torchvision(
    images: Path, annotations: Path, ids: list[int], policy: Policy, to_tensor: v2.Transform, first: bool
) -> Pipeline:
    """Return the references' detection presets ``multiscale`` (one scale) and ``lsj``; tensors come first or last."""
    fill = {tv_tensors.Mask: 0, "others": FILL}
    steps: list[v2.Transform] = [v2.RandomShortestSize([SHORT], LONG)]
    if policy == "jitter":
        window = (WINDOW, WINDOW)
        steps = [v2.ScaleJitter(window, SCALES), v2.RandomCrop(window, pad_if_needed=True, fill=fill)]
    steps += [v2.RandomHorizontalFlip(0.5)]
    steps = [to_tensor, *steps] if first else [*steps, to_tensor]
    transforms = v2.Compose([*steps, v2.SanitizeBoundingBoxes(), v2.ToPureTensor()])
    with contextlib.redirect_stdout(io.StringIO()):
        files = CocoDetection(images, str(annotations), transforms=transforms)
    places = {image_id: place for place, image_id in enumerate(files.ids)}
    dataset = wrap_dataset_for_transforms_v2(files, target_keys=("boxes", "labels", "masks"))
    return lambda number, index: dataset[places[ids[index]]]


def _albumentations(images: Path, annotations: Path, ids: list[int], policy: Policy) -> Pipeline:
    """Return the pipeline that albumentations documents; it has no limit for the long side."""
    steps: list[A.BasicTransform] = [A.SmallestMaxSize(SHORT)]
    if policy == "jitter":
        steps = [
            A.LongestMaxSize(WINDOW),
            A.RandomScale((SCALES[0] - 1, SCALES[1] - 1), p=1),
            A.RandomCrop(WINDOW, WINDOW, pad_if_needed=True, fill=FILL, fill_mask=0),
        ]
    boxes = A.BboxParams(format="coco", label_fields=["labels", "rows"], clip=True)
    transform = A.Compose([*steps, A.HorizontalFlip(p=0.5), ToTensorV2()], bbox_params=boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))

    def make(number: int, index: int) -> Any:
        entries = coco.loadAnns(coco.getAnnIds(ids[index]))
        pixels = cv2.imread(str(images / coco.imgs[ids[index]]["file_name"]))
        assert pixels is not None, "the data set has looked at every file"
        return transform(
            image=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB),
            masks=[coco.annToMask(entry) for entry in entries],
            bboxes=np.array([entry["bbox"] for entry in entries]),
            labels=[entry["category_id"] for entry in entries],
            rows=list(range(len(entries))),
        )

    return make
