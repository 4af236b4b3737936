"""Semantic data in the layout of PASCAL VOC."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...formats.images import check_image, image_size
from ...structures import UsageError
from ..dataset import DATASETS
from ..file_checks import check_files
from ..label_maps import LazySemanticMaps, check_label_map, read_label_map, read_tail
from ..report import DataReport, Policy
from ..types import Record
from .images import VocImages
from .layout import VocFolderConfig, list_images, read_class_names
from .names import BACKGROUND, VOC_CLASSES

DECODED_AT_START = 32
"""Masks whose pixels are checked before training, evenly spaced over all; the others are when they are read."""


class VocSegmentationConfig(VocFolderConfig):
    """Images with masks of class numbers; the lists are those of ``ImageSets/Segmentation``."""

    name: Literal["voc_segmentation"] = "voc_segmentation"
    masks: str = "SegmentationClass"
    """The folder of the masks; ``SegmentationClassAug`` is the usual name for those of SBD."""
    background: bool | None = None
    """Whether 0 is the background, and the class names begin at 1. None will do where the first name is
    ``background``, as it is of VOC's own 21."""

    def classes(self) -> tuple[str, ...]:
        """The class names, as far as the config states them."""
        return _with_background(super().classes(), self.background)


@DATASETS.register("voc_segmentation", VocSegmentationConfig)
class VocSegmentation(VocImages):
    """VOC's images and their masks: the numbers of a palette or 8-bit gray PNG are the labels, 255 is ignored."""

    task: ClassVar[str] = "semantic"
    config: VocSegmentationConfig

    def __init__(self, policy: Policy, config: VocSegmentationConfig) -> None:
        self.config = config
        self.report = report = DataReport(policy, config.root, kinds=("images",))
        names = config.class_names or read_class_names(config.root) or (BACKGROUND, *VOC_CLASSES)
        self.class_names = _with_background(names, config.background)
        self.category_ids = tuple(range(len(self.class_names)))
        images = list_images(config, "Segmentation", report)
        report.read["images"] = len(images)
        masks = [image.folder / config.masks / f"{image.stem}.png" for image in images]
        paths: dict[int, Path] = {}
        sizes: dict[int, tuple[int, int]] = {}
        decoded = {number * len(images) // DECODED_AT_START for number in range(DECODED_AT_START)}

        def look(place: int) -> list[str]:
            image_id = images[place].image_id
            path = paths[place] = images[place].find(config.allow_outside)
            notes = check_image(path, None, image_id)
            size = sizes[place] = image_size(path, image_id)
            check_label_map(masks[place], size, image_id)
            if place in decoded:
                self._read_mask(masks[place], image_id)
            return notes

        usable = check_files([image.image_id for image in images], look, report)
        places = np.flatnonzero(usable).tolist()
        report.require_images(len(places), "check the path and the lists")
        self._hold([images[place].image_id for place in places], [paths[place] for place in places])
        self._sizes = np.array([sizes[place] for place in places], np.int64)
        self._masks = np.array([os.fsencode(masks[place]) for place in places])

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """As the images' headers say."""
        return self._sizes

    def add_annotations(self, record: Record, index: int) -> Record:
        """With its map."""
        return replace(record, semantic=self._read_map(index))

    def annotation_digest(self) -> str:
        """Of the end of every mask's file."""
        digest = hashlib.sha256()
        for path in self._masks.tolist():
            digest.update(read_tail(Path(os.fsdecode(path))))
        return digest.hexdigest()

    def ground_truth(self) -> Any:
        """The map of each image id, read when it is asked for."""
        return LazySemanticMaps(self.image_ids, self._read_map)

    def _read_map(self, index: int) -> UInt8[ndarray, "h w"]:
        return self._read_mask(Path(os.fsdecode(self._masks[index].item())), self._id(index))

    def _read_mask(self, path: Path, image_id: str) -> UInt8[ndarray, "h w"]:
        hint = "name all classes in dataset.class_names, or correct the mask"
        if self.config.background is False:
            hint += "; if 0 is the background, set dataset.background to true"
        return read_label_map(path, len(self.class_names), image_id, hint)


def _with_background(names: tuple[str, ...], background: bool | None) -> tuple[str, ...]:
    """The name of every number from 0 on; UsageError where it is not known whether 0 is the background."""
    if names[0] == BACKGROUND:
        return names
    if background is None:
        raise UsageError(
            f"the first class is {names[0]!r}: is 0 in the masks this class, or the background?",
            "set dataset.background to false or true",
        )
    return (BACKGROUND, *names) if background else names
