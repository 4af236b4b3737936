"""Folders of images and of masks with the same names, given by their path, for class maps."""

import itertools
from pathlib import Path

import numpy as np

from ...formats import read_class_names
from ...formats.labels import list_images_below
from ...formats.mask_values import read_label_map, read_mask_codes
from ...structures import UsageError
from ..dataset import DatasetConfig
from ..mask_folder import MaskFolderConfig
from .base import DataPath, Part, PathFormat

FOLDERS = tuple(itertools.product(("images", "image", "imgs", "img"), ("masks", "mask", "labels", "annotations", "gt")))
"""The folders of the images and of the masks, in the order in which they are looked for."""
MASK_NAMES = ("{stem}.png", "{stem}_mask.png", "{stem}-mask.png", "{stem}_label.png", "{stem}.bmp", "{stem}.tif")
PAIRS = (("train", "val"), ("train", "valid"), ("training", "validation"), ("train", "test"))
"""The names of folders for training and validation, in the order of preference."""
LOOKED_AT = 16
"""The number of masks whose values are looked at, if there is no list of classes."""
BINARY = ("background", "foreground")


def _find(root: Path) -> tuple[Path, Path, str] | None:
    """Return the folders of images and of masks below a folder, and the name of a mask; None if there are none."""
    for images, masks in FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            first = next(iter(list_images_below(root / images)), None)
            for name in MASK_NAMES if first is not None else ():
                image = Path(first or "")
                if (root / masks / image.parent / name.format(stem=image.stem)).is_file():
                    return root / images, root / masks, name
    return None


def _find_parts(root: Path) -> tuple[str, str] | None:
    """Return the names of the parts for training and validation, which are folders of the root or of its images."""
    found = _find(root)
    for pair in PAIRS:
        if all(_find(root / name) is not None for name in pair):
            return pair
        if found is not None and all((folder / name).is_dir() for folder in found[:2] for name in pair):
            return pair
    return None


def _configure(data: DataPath, part: Part) -> DatasetConfig:
    """Return the config of the class maps; raise UsageError if the classes are unknown."""
    root = data.path
    if data.task != "semantic":
        raise UsageError(
            "masks with the names of their images are class maps, which have no objects",
            "choose a model with a semantic head, or give a mask per object", file=root,
        )  # fmt: skip
    if data.images is not None:
        raise UsageError("the images are beside the masks", "leave out --images (images= in Python)", file=root)
    pair = _find_parts(root) if part != "all" else None
    name = "" if pair is None else pair[0 if part == "train" else 1]
    found = (_find(root / name) if name else None) or _find(root)
    assert found is not None, "recognized by its folders"
    images, masks, mask_name = found
    if name and images.parent != root / name and images != root / name:
        images, masks = images / name, masks / name
    classes = _find_classes(root, masks, mask_name, images)
    return MaskFolderConfig(images=images, masks=masks, mask_name=mask_name, **classes)


def _find_classes(root: Path, masks: Path, mask_name: str, images: Path) -> dict:
    """Return the class names and values that a list of classes gives, or those of masks of 0 and 1 or 0 and 255."""
    for folder in (root, root.parent):
        if (folder / "labelmap.txt").is_file():
            entries = read_label_map(folder / "labelmap.txt")
            names = tuple(dict.fromkeys(name for name, _ in entries))
            return {"class_names": names, "values": tuple((color, name) for name, color in entries)}
        if (listed := read_class_names(folder)) is not None:
            return {"class_names": listed}
    stems = [Path(name) for name in list_images_below(images)]
    paths = [masks / stem.parent / mask_name.format(stem=stem.stem) for stem in stems]
    found: set[int] = set()
    for path in [path for path in paths if path.is_file()][:LOOKED_AT]:
        found |= set(np.unique(read_mask_codes(path, False, path.name)).tolist())
    if found <= {0, 1} or found <= {0, 255}:
        return {"class_names": BINARY, "values": ((0, BINARY[0]), (max(found, default=1) or 1, BINARY[1]))}
    shown = ", ".join(map(str, sorted(found)[:10]))
    raise UsageError(
        f"the masks have the values {shown}, whose classes are unknown",
        "write class_names.txt (a class per line, from 0) or labelmap.txt (name:r,g,b::) in the folder", file=root,
    )  # fmt: skip


def _recognize(path: Path) -> bool:
    return path.is_dir() and (_find(path) is not None or _find_parts(path) is not None)


MASKS = PathFormat(
    key="masks",
    name="a folder of images and masks",
    expected="images/ and masks/ with the same file names",
    recognize=_recognize,
    has_parts=lambda data: _find_parts(data.path) is not None,
    configure=_configure,
)
