"""Copy-paste (2012.07177): objects of another image are pasted onto this one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ...structures import UsageError
from ..dataset import Dataset
from ..object_fields import Window
from ..objects import Objects, concatenate_objects
from ..transforms.visible import fit_boxes_to_masks, has_visible_mask
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, compose_canvas, crop_record, objects_of


class CopyPasteConfig(MixConfig):
    """Options of copy-paste.

    Both images are transformed first. The paper's transform is large-scale jitter (``scaled_crop``); without it
    copy-paste improves results far less.
    """

    name: Literal["copy_paste"] = "copy_paste"


@MIXES.register("copy_paste", CopyPasteConfig)
class CopyPaste(Mix):
    """Paste a random subset of the objects of another image, cut out along their masks, onto this image.

    The number of pasted objects is uniform from none to all objects with a non-empty mask; the paper (section 3) only
    says "a random subset". Hidden pixels are removed from the masks of this image's objects: a fully hidden object is
    dropped, and a partly hidden one gets the box of its visible pixels. A visible keypoint covered by a pasted object
    is marked as hidden. Pixels of a semantic map are pasted like those of the image. Ignore regions are not pasted, and
    those of this image stay. Edges are not blended, since the paper found no gain. If the sizes differ, the other image
    is aligned at the top left and cropped to this one.
    """

    def __init__(self, dataset: Dataset, config: CopyPasteConfig) -> None:
        super().__init__(dataset, config, partners=1, tasks=("detection", "semantic"))
        detection = dataset.part("detection") if "detection" in dataset.classes else None
        if detection is None or not detection.masks or detection.mask_format != "bitmaps":
            raise UsageError(
                "copy_paste needs the masks of objects as bitmaps",
                "set masks=true and mask_format=bitmaps for the objects of train.dataset, or leave train.mix out",
            )

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        below, other = records
        above = _fit_into(_choose_objects(other, generator), below.image.shape[:2])
        pasted = objects_of(above)
        covered = np.asarray(_bitmaps_of(pasted).max(axis=0, initial=0))
        semantic = below.semantic
        if semantic is not None and above.semantic is not None:
            semantic = _paste(above.semantic, covered, semantic)
        objects = concatenate_objects([_hide(objects_of(below), covered), pasted.replace(ignored=_NO_REGIONS)])
        return replace(below, image=_paste(above.image, covered, below.image), objects=objects, semantic=semantic)


_NO_REGIONS = np.zeros((0, 4), np.float32)


def _choose_objects(record: Record, generator: np.random.Generator) -> Record:
    """Return the record with a random subset of its objects with a non-empty mask, in their order."""
    objects = objects_of(record)
    visible = np.flatnonzero(has_visible_mask(objects))
    chosen = np.sort(generator.permutation(visible)[: generator.integers(len(visible) + 1)])
    return replace(record, objects=objects[chosen])


def _fit_into(record: Record, size: tuple[int, int]) -> Record:
    """Crop or pad a record at the bottom and right to ``size`` (height, width)."""
    if record.image.shape[:2] == size:
        return record
    height, width = np.minimum(size, record.image.shape[:2]).tolist()
    return compose_canvas([Piece(crop_record(record, Window(0, 0, width, height)))], size)


def _bitmaps_of(objects: Objects) -> UInt8[ndarray, "n h w"]:
    assert objects.masks is not None, "the constructor has checked that the data set has bitmaps"
    return objects.masks


def _hide(objects: Objects, covered: UInt8[ndarray, "h w"]) -> Objects:
    """Remove covered pixels from the masks, hide covered keypoints, refit changed boxes, and drop hidden objects."""
    visible = objects.cover(covered)
    changed = (_bitmaps_of(visible) != _bitmaps_of(objects)).any(axis=(1, 2))
    return fit_boxes_to_masks(visible, changed, (covered.shape[0], covered.shape[1]))


def _paste(
    above: UInt8[ndarray, "..."], covered: UInt8[ndarray, "h w"], below: UInt8[ndarray, "..."]
) -> UInt8[ndarray, "..."]:
    """Return a copy of ``below``, an image or a map, with the covered pixels replaced by those of ``above``."""
    return cv2.copyTo(above, covered, below.copy())
