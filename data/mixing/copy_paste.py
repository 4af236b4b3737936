"""Copy-paste (2012.07177): objects of another image, pasted on this one."""

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
from .pieces import Piece, compose_canvas, cut, objects_of


class CopyPasteConfig(MixConfig):
    """Both images are transformed first. The paper's transform is large-scale jitter (``scaled_crop``), without which
    copy-paste gains far less."""

    name: Literal["copy_paste"] = "copy_paste"


@MIXES.register("copy_paste", CopyPasteConfig)
class CopyPaste(Mix):
    """An image on which some objects of another one, cut out along their masks, hide what is under them.

    The number of pasted objects is drawn evenly from none to all, and then which (section 3 leaves it at "a random
    subset"); one whose mask is empty has nothing to paste. Masks lose what is hidden, an object is dropped where
    nothing of it is left, and where only a part is hidden its box becomes that of its visible pixels. Pixels of a
    semantic map come with those of the image. Regions to ignore are not pasted, and those of the image stay. Edges are
    not blended: the paper found no gain in it. Where the images differ in size, the other one is laid at the top left,
    and cut at the borders of this one.
    """

    def __init__(self, dataset: Dataset, config: CopyPasteConfig) -> None:
        super().__init__(dataset, config, partners=1, tasks=("detection", "semantic"))
        detection = dataset.part("detection") if "detection" in dataset.classes else None
        if detection is None or not detection.masks or detection.mask_format != "bitmaps":
            raise UsageError(
                "copy_paste cuts objects out along their masks, which it needs as bitmaps",
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
    """Return the record with a random subset of the objects that it shows, in their order."""
    objects = objects_of(record)
    shown = np.flatnonzero(has_visible_mask(objects))
    chosen = np.sort(generator.permutation(shown)[: generator.integers(len(shown) + 1)])
    return replace(record, objects=objects[chosen])


def _fit_into(record: Record, size: tuple[int, int]) -> Record:
    """Return the record's top left part on a canvas of this (height, width)."""
    if record.image.shape[:2] == size:
        return record
    height, width = np.minimum(size, record.image.shape[:2]).tolist()
    return compose_canvas([Piece(cut(record, Window(0, 0, width, height)))], size)


def _bitmaps_of(objects: Objects) -> UInt8[ndarray, "n h w"]:
    assert objects.masks is not None, "the data set was asked for them"
    return objects.masks


def _hide(objects: Objects, covered: UInt8[ndarray, "h w"]) -> Objects:
    """Return what is left of objects some of whose pixels are covered."""
    masks = _bitmaps_of(objects)
    left = masks & ~covered
    changed = (left != masks).any(axis=(1, 2))
    return fit_boxes_to_masks(objects.replace(masks=left), changed, (covered.shape[0], covered.shape[1]))


def _paste(
    above: UInt8[ndarray, "..."], covered: UInt8[ndarray, "h w"], below: UInt8[ndarray, "..."]
) -> UInt8[ndarray, "..."]:
    """Return an image, or a map, with the covered pixels of another one on it."""
    return cv2.copyTo(above, covered, below.copy())
