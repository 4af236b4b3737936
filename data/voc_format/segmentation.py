"""Semantic segmentation data sets in PASCAL VOC's layout."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...formats import check_class_map, check_image, image_size, read_class_map, read_class_names
from ...formats.class_maps import read_last_bytes
from ...structures import UsageError
from ..dataset import DATASETS, LazyMaps
from ..file_checks import check_files
from ..report import DataReport, Policy
from ..types import Record
from .folder import BACKGROUND, VOC_CLASSES, VocFolderConfig, VocImages, list_images

DECODED_AT_START = 32
"""Number of masks, evenly spaced over all, whose pixels are checked before training; the others are checked when they
are read."""


class VocSegmentationConfig(VocFolderConfig):
    """A semantic segmentation data set in PASCAL VOC's layout, with the image lists of ``ImageSets/Segmentation``."""

    name: Literal["voc_segmentation"] = "voc_segmentation"
    masks: str = "SegmentationClass"
    """The folder of the masks; ``SegmentationClassAug`` is the usual name for the masks of SBD."""
    background: bool | None = None
    """Whether the value 0 in the masks is the background, so that ``class_names`` start at 1. None is allowed if the
    first class is named ``background``, as in VOC's own 21 classes."""

    def classes(self) -> tuple[str, ...]:
        """Return the class names with the background; raise UsageError if ``class_names`` is None."""
        return _with_background(super().classes(), self.background)


@DATASETS.register("voc_segmentation", VocSegmentationConfig)
class VocSegmentation(VocImages):
    """A semantic segmentation data set in PASCAL VOC's layout.

    The masks are PNG files with a palette or 8-bit gray, whose values are the labels; 255 is ignored. All headers, and
    the pixels of a few masks, are checked before training. The pixels of every mask are checked when it is read.
    """

    task: ClassVar[str] = "semantic"
    config: VocSegmentationConfig

    def __init__(self, policy: Policy, config: VocSegmentationConfig) -> None:
        self.config = config
        self.report = report = DataReport(policy, config.root, kinds=("images",))
        names = config.class_names or read_class_names(config.root) or (BACKGROUND, *VOC_CLASSES)
        self.class_names = _with_background(names, config.background)
        self.category_ids = tuple(range(len(self.class_names)))
        images = list_images(config, "Segmentation", f"{config.masks}/*.png", report)
        report.read["images"] = len(images)
        masks = [image.folder / config.masks / f"{image.stem}.png" for image in images]
        paths: dict[int, Path] = {}
        sizes: dict[int, tuple[int, int]] = {}
        decoded = {number * len(images) // DECODED_AT_START for number in range(DECODED_AT_START)}

        def check(index: int) -> list[str]:
            image_id = images[index].image_id
            path = paths[index] = images[index].find_file(config.allow_outside)
            cases = check_image(path, None, image_id)
            size = sizes[index] = image_size(path, image_id)
            check_class_map(masks[index], size, image_id)
            if index in decoded:
                self._read_mask(masks[index], image_id)
            return cases

        usable = check_files([image.image_id for image in images], check, report)
        indices = np.flatnonzero(usable).tolist()
        report.require_usable(len(indices), "check the path and the lists")
        self._store_images([images[index].image_id for index in indices], [paths[index] for index in indices])
        self._sizes = np.array([sizes[index] for index in indices], np.int64)
        self._masks = np.array([os.fsencode(masks[index]) for index in indices])

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every upright image, from the image headers."""
        return self._sizes

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the class map to a record."""
        return replace(record, semantic=self._read_map(index))

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the last bytes of all mask files, which contain the checksums of the pixels."""
        digest = hashlib.sha256()
        for path in self._masks.tolist():
            digest.update(read_last_bytes(Path(os.fsdecode(path))))
        return digest.hexdigest()

    def ground_truth(self) -> Any:
        """Return a mapping from image id to class map; a map is read on access."""
        return LazyMaps(self.image_ids, self._read_map)

    def _read_map(self, index: int) -> UInt8[ndarray, "h w"]:
        return self._read_mask(Path(os.fsdecode(self._masks[index].item())), self._id(index))

    def _read_mask(self, path: Path, image_id: str) -> UInt8[ndarray, "h w"]:
        hint = "name all classes in dataset.class_names, or correct the mask"
        if self.config.background is False:
            hint += "; if 0 is the background, set dataset.background to true"
        return read_class_map(path, len(self.class_names), image_id, hint)


def _with_background(names: tuple[str, ...], background: bool | None) -> tuple[str, ...]:
    """Return the names of the values 0, 1, ... in the masks; raise UsageError if it is unknown what 0 stands for."""
    if names[0] == BACKGROUND:
        return names
    if background is None:
        raise UsageError(
            f"the first class is {names[0]!r}: is 0 in the masks this class, or the background?",
            "set dataset.background to false or true",
        )
    return (BACKGROUND, *names) if background else names
