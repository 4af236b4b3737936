"""Copy-paste (2012.07177): objects of another image, put upon this one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ...structures import UsageError
from ..dataset import Dataset
from ..transforms.visible import fit_boxes_to_masks, has_visible_mask
from ..types import Objects, Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, Window, compose_canvas, concatenate_objects, cut, objects_of


class CopyPasteConfig(MixConfig):
    """Both images get the transform first; the paper's is large-scale jitter (``scaled_crop``), without which it gains
    far less."""

    name: Literal["copy_paste"] = "copy_paste"


@MIXES.register("copy_paste", CopyPasteConfig)
class CopyPaste(Mix):
    """Some objects of another image, cut out along their masks, hide what is under them.

    How many is drawn evenly from none to all of them, and then which (section 3 leaves it at "a random subset"); one
    whose mask is empty has nothing to paste. Masks lose what is hidden, an object that is hidden whole is dropped, and
    the box of one that is hidden in part becomes that of its visible pixels. What either map of classes says of a pixel
    comes with the pixel. Regions to ignore are not pasted, and those of the image stay. Edges are not blended: the
    paper found no gain in it. Where the images are of different size, the other one is laid at the top left, and cut at
    the borders of this one.
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
        """The first with objects of the second upon it."""
        under, other = records
        upper = _at_size(_only_some(other, generator), under.image.shape[:2])
        pasted = objects_of(upper)
        covered = _union(pasted)
        semantic = under.semantic
        if semantic is not None and upper.semantic is not None:
            semantic = _put(upper.semantic, covered, semantic)
        objects = concatenate_objects([_hide(objects_of(under), covered), replace(pasted, ignored=_NO_REGIONS)])
        return replace(under, image=_put(upper.image, covered, under.image), objects=objects, semantic=semantic)


_NO_REGIONS = np.zeros((0, 4), np.float32)


def _only_some(record: Record, generator: np.random.Generator) -> Record:
    """With a random subset of the objects that it shows, in their order."""
    objects = objects_of(record)
    shown = np.flatnonzero(has_visible_mask(objects))
    chosen = np.sort(generator.permutation(shown)[: generator.integers(len(shown) + 1)])
    return replace(record, objects=objects[chosen])


def _at_size(record: Record, size: Sequence[int]) -> Record:
    """Its top left at this (height, width)."""
    if record.image.shape[:2] == size:
        return record
    height, width = np.minimum(size, record.image.shape[:2]).tolist()
    return compose_canvas([Piece(cut(record, Window(0, 0, width, height)))], (size[0], size[1]))


def _union(objects: Objects) -> UInt8[ndarray, "h w"]:
    """1 where any of them is."""
    assert objects.masks is not None, "the data set was asked for them"
    return np.asarray(objects.masks.max(axis=0, initial=0))


def _hide(objects: Objects, covered: UInt8[ndarray, "h w"]) -> Objects:
    """What is left of objects of which these pixels are covered."""
    assert objects.masks is not None, "the data set was asked for them"
    left = objects.masks & ~covered
    return fit_boxes_to_masks(replace(objects, masks=left), (left != objects.masks).any(axis=(1, 2)), covered.shape)


def _put(
    upper: UInt8[ndarray, "..."], covered: UInt8[ndarray, "h w"], under: UInt8[ndarray, "..."]
) -> UInt8[ndarray, "..."]:
    """These pixels of one image, or map, upon another."""
    return cv2.copyTo(upper, covered, under.copy())
