"""Data pipelines of several libraries on the same images and objects, for ``vertebra benchmark-data``.

Each pipeline reads an image, rasterizes the masks of its objects, resizes, flips and returns tensors: boxes, labels,
masks and a uint8 image. (torchvision's reference presets also convert to float; our models do that on their device.)
Mayaku, which is compared if it is installed, returns a float image.
"""

import contextlib
import importlib.util
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
"""A function that returns the sample of an (epoch, image index)."""


def build_pipelines(
    images: Path, annotations: Path, policy: Policy, decode_short_side: int | None = None
) -> tuple[Pipeline, Mapping[str, Pipeline], int]:
    """Return our pipeline, the other pipelines by name, and the number of images that have an object.

    ``decode_short_side`` applies to our pipeline; if it is given, the others include ours without it.
    """
    ours, ids = _ours(images, annotations, policy, decode_short_side)
    others = {} if decode_short_side is None else {"ours, full decode": _ours(images, annotations, policy)[0]}
    return ours, others | _theirs(images, annotations, ids, policy), len(ids)


def _theirs(images: Path, annotations: Path, ids: list[int], policy: Policy) -> dict[str, Pipeline]:
    pipelines = {
        "torchvision v2, PIL": _torchvision(images, annotations, ids, policy, v2.PILToTensor(), first=False),
        "torchvision v2, tensors": _torchvision(images, annotations, ids, policy, v2.ToImage(), first=True),
        "albumentations": _albumentations(images, annotations, ids, policy),
    }
    if policy == "resize" and importlib.util.find_spec("mayaku") is not None:
        pipelines["mayaku"] = _mayaku(images, annotations, ids)
    return pipelines


def _ours(
    images: Path, annotations: Path, policy: Policy, decode_short_side: int | None = None
) -> tuple[Pipeline, list[int]]:
    files = {"images": images, "annotations": annotations, "decode_short_side": decode_short_side}
    dataset = build_dataset(CocoConfig(**files, masks=True, keep_empty=False), "skip")
    window = ScaledCropConfig(size=(WINDOW, WINDOW), scales=SCALES)
    resize = ResizeConfig(short_sides=(SHORT,), long_side=LONG, flip=0.5)
    transform = build_transform(resize if policy == "resize" else window)
    ids = [image_id for image_id in dataset.image_ids if isinstance(image_id, int)]
    return lambda epoch, index: transform(dataset.read(index), epoch, index), ids


def _torchvision(
    images: Path, annotations: Path, ids: list[int], policy: Policy, to_tensor: v2.Transform, first: bool
) -> Pipeline:
    """Return torchvision's reference detection presets: ``multiscale`` with one scale, or ``lsj``.

    ``first``: convert to tensors before all other steps instead of after them.
    """
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
    index_of_id = {image_id: index for index, image_id in enumerate(files.ids)}
    dataset = wrap_dataset_for_transforms_v2(files, target_keys=("boxes", "labels", "masks"))
    return lambda epoch, index: dataset[index_of_id[ids[index]]]


def _albumentations(images: Path, annotations: Path, ids: list[int], policy: Policy) -> Pipeline:
    """Return the pipeline of albumentations' documentation, which does not limit the long side."""
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

    def make_sample(epoch: int, index: int) -> Any:
        entries = coco.loadAnns(coco.getAnnIds(ids[index]))
        pixels = cv2.imread(str(images / coco.imgs[ids[index]]["file_name"]))
        assert pixels is not None, "our data set has checked that every image can be read"
        return transform(
            image=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB),
            masks=[coco.annToMask(entry) for entry in entries],
            bboxes=np.array([entry["bbox"] for entry in entries]),
            labels=[entry["category_id"] for entry in entries],
            rows=list(range(len(entries))),
        )

    return make_sample


def _mayaku(images: Path, annotations: Path, ids: list[int]) -> Pipeline:
    """Return mayaku's mapper with a resize and a flip, given shallow copies, which are faster than its deep copies."""
    data, transforms = (importlib.import_module(f"mayaku.data{name}") for name in ("", ".transforms"))
    with contextlib.redirect_stdout(io.StringIO()):
        _, entries = data.load_coco_dataset("benchmark", annotations, images, keep_keypoints=False)
    entry_of_id = {entry["image_id"]: entry for entry in entries}
    steps = [transforms.ResizeShortestEdge([SHORT], LONG), transforms.RandomFlip(0.5)]
    mapper = data.DatasetMapper(steps, mask_format="bitmask", deepcopy_input=False)
    return lambda epoch, index: mapper(dict(entry_of_id[ids[index]]))
