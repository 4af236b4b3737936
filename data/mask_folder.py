"""Semantic segmentation data sets of a folder of images and one of masks, with a table of the values of classes."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray
from pydantic import Field, model_validator

from ..formats import check_image, image_size
from ..formats.class_maps import read_last_bytes
from ..formats.labels import list_images_below
from ..formats.mask_values import MaskTable, MaskValue
from ..structures import IGNORE, DataError
from .dataset import DATASETS, Dataset, LazyMaps
from .file_checks import check_files
from .image_files import ImageFilesConfig, read_image_record
from .report import DataReport, Policy
from .types import Record

DECODED_AT_START = 32
"""Number of masks, evenly spaced over all, whose pixels are checked before training; the others are checked when they
are read."""


class MaskFolderConfig(ImageFilesConfig):
    """A semantic segmentation data set: a folder of images, and one of masks with the same names.

    The id of an image is its path below the folder of images.
    """

    name: Literal["mask_folder"] = "mask_folder"
    images: Path
    masks: Path
    class_names: tuple[str, ...] = Field(min_length=1)
    """The names of the labels 0, 1, ...; the background is a class like any other."""
    values: tuple[tuple[MaskValue, str], ...] = ()
    """(value, class name) pairs: the gray value, palette index or color (red, green, blue) of a class in the masks.
    Several values may be one class. Empty: the values are the labels, as in PASCAL VOC and MMSegmentation."""
    ignored: tuple[MaskValue, ...] = (255,)
    """Values that are ignored in training and evaluation; a value that is also in ``values`` is a class."""
    others: Literal["error", "ignore"] = "error"
    """Treatment of mask values that are neither in ``values`` nor in ``ignored``: bad data, or ignored pixels."""
    other_size: Literal["error", "resize"] = "error"
    """Treatment of masks of another size than their image: bad data, or resized to it by nearest neighbor."""
    mask_name: str = "{stem}.png"
    """The file name of the mask of an image, such as ``{stem}_mask.png``; subfolders are the same."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images, in the order of their names."""
    allow_outside: bool = False
    """Accept images and masks outside their folders, through links."""

    @model_validator(mode="after")
    def _require_known_names(self) -> "MaskFolderConfig":
        unknown = [name for _, name in self.values if name not in self.class_names]
        if unknown:
            raise ValueError(f"values names {unknown[0]!r}, which is not one of class_names")
        if len({isinstance(value, tuple) for value, _ in self.values}) > 1:
            raise ValueError("values are all numbers or all colors")
        if "{stem}" not in self.mask_name:
            raise ValueError("mask_name has no {stem}")
        return self

    def classes(self) -> tuple[str, ...]:
        return self.class_names

    def table(self) -> MaskTable:
        """Return the table from values in the masks to labels."""
        pairs = [(value, self.class_names.index(name)) for value, name in self.values]
        pairs = pairs or [(label, label) for label in range(len(self.class_names))]
        colors = any(isinstance(value, tuple) for value, _ in pairs)
        known = {value for value, _ in pairs}
        pairs += [
            (value, IGNORE) for value in self.ignored if value not in known and isinstance(value, tuple) == colors
        ]
        values, labels = zip(*pairs, strict=True)
        return MaskTable(values, labels, None if self.others == "error" else IGNORE)


@DATASETS.register("mask_folder", MaskFolderConfig)
class MaskFolder(Dataset):
    """A semantic segmentation data set of a folder of images and one of masks.

    All masks must exist, and the pixels of a few are checked before training. Those of every mask are checked when it
    is read.
    """

    task: ClassVar[str] = "semantic"

    def __init__(self, policy: Policy, config: MaskFolderConfig) -> None:
        self.config, self.class_names = config, config.class_names
        self.category_ids = tuple(range(len(config.class_names)))
        self.report = report = DataReport(policy, config.images, kinds=("images",))
        self._table = config.table()
        names = _list_names(config)
        report.read["images"] = len(names)
        sizes: dict[int, tuple[int, int]] = {}
        decoded = {number * len(names) // DECODED_AT_START for number in range(DECODED_AT_START)}

        def check(index: int) -> list[str]:
            name = names[index]
            path, mask = config.images / name, self._find_mask(name)
            for file, folder in ((path, config.images), (mask, config.masks)):
                _require_inside(file, folder, name, config.allow_outside)
            cases = check_image(path, None, name)
            sizes[index] = image_size(path, name)
            if index in decoded:
                self._read_mask(name, sizes[index])
            return cases

        usable = check_files(names, check, report)
        indices = np.flatnonzero(usable).tolist()
        report.require_usable(len(indices), "check the folders and mask_name")
        self.image_ids = [names[index] for index in indices]
        self._names = np.array([os.fsencode(name) for name in self.image_ids])
        self._sizes = np.array([sizes[index] for index in indices], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every upright image, from the image headers."""
        return self._sizes

    def file_name(self, index: int) -> str:
        return os.fspath(self.config.images / self._name(index))

    def read_image(self, index: int) -> Record:
        return read_image_record(self.file_name(index), self._name(index), self.config.decode_short_side)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the class map to a record."""
        return replace(record, semantic=self._read_map(index))

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the last bytes of all mask files, which for PNG contain the checksum of the pixels."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(read_last_bytes(self._find_mask(self._name(index))))
        return digest.hexdigest()

    def ground_truth(self) -> Any:
        """Return a mapping from image id to class map; a map is read on access."""
        return LazyMaps(self.image_ids, self._read_map)

    def _name(self, index: int) -> str:
        return os.fsdecode(self._names[index].item())

    def _read_map(self, index: int) -> UInt8[ndarray, "h w"]:
        height, width = self._sizes[index].tolist()
        return self._read_mask(self._name(index), (height, width))

    def _read_mask(self, name: str, size: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        return self._table.read(self._find_mask(name), size, self.config.other_size == "resize", name)

    def _find_mask(self, name: str) -> Path:
        """Return the mask of an image; raise DataError if there is none."""
        image = Path(name)
        path = self.config.masks / image.parent / self.config.mask_name.format(stem=image.stem)
        if not path.is_file():
            raise DataError(
                "the image has no mask", "add it, or correct mask_name", case="missing-mask", file=path, image_id=name
            )
        return path


def _list_names(config: MaskFolderConfig) -> list[str]:
    for folder in (config.images, config.masks):
        if not folder.is_dir():
            raise DataError("there is no such folder", "check the path", case="missing-folder", file=folder)
    names = list_images_below(config.images)
    ending = config.mask_name.partition("{stem}")[2]
    if config.masks.resolve().is_relative_to(config.images.resolve()):  # masks beside the images are no images
        names = [name for name in names if not name.endswith(ending)]
    return names[: config.subset]


def _require_inside(path: Path, folder: Path, image_id: str, allow_outside: bool) -> None:
    if not allow_outside and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"the file lies outside {folder}", "set allow_outside to allow it",
            case="outside-root", file=path, image_id=image_id,
        )  # fmt: skip
