"""Folders in PASCAL VOC's layout, given by their path."""

from pathlib import Path

from ...formats import read_class_names, read_voc_object_names
from ...structures import DataError, UsageError
from ..dataset import DatasetConfig
from ..voc_format import VOC_CLASSES, VocConfig, VocSegmentationConfig
from .base import DataPath, Part, PathFormat

PAIRS = (("train", "val"), ("train", "valid"), ("trainval", "test"), ("train", "test"))
"""The names of image lists for training and validation, in the order of preference."""


def _configure(data: DataPath, part: Part) -> DatasetConfig:
    """Return the config for boxes or, for the task ``semantic``, for class maps."""
    root = data.path
    if data.images is not None:
        raise UsageError(
            f"the images of a VOC folder are in {root / 'JPEGImages'}", "leave out --images (images= in Python)"
        )
    splits = _splits(data, part)
    if data.task == "semantic":
        return VocSegmentationConfig(root=root, splits=splits)
    return VocConfig(root=root, splits=splits, class_names=_find_class_names(root))


def _splits(data: DataPath, part: Part) -> tuple[str, ...]:
    """Return the image lists of a part; empty, which stands for all annotated images, if there is no list to take."""
    if part != "all":
        pair = _find_pair(data)
        assert pair is not None, "parts are taken only from data that have them"
        return (pair[0 if part == "train" else 1],)
    lists = _lists(data)
    if len(lists) == 1:
        return tuple(lists)
    return ("trainval",) if "trainval" in lists else ()


def _find_pair(data: DataPath) -> tuple[str, str] | None:
    """Return the names of the image lists for training and validation; None if there are none."""
    lists = _lists(data)
    return next((pair for pair in PAIRS if lists.issuperset(pair)), None)


def _lists(data: DataPath) -> set[str]:
    """Return the names of the image lists, without VOC's lists of single classes (``cat_train``)."""
    folder = data.path / "ImageSets" / ("Segmentation" if data.task == "semantic" else "Main")
    names = {path.stem for path in folder.glob("*.txt")}
    return {name for name in names if name.rpartition("_")[2] == name or name.rpartition("_")[2] not in names}


def _find_class_names(root: Path) -> tuple[str, ...] | None:
    """Return the names of the objects in the annotations, sorted; None if class_names.txt or VOC has them.

    An annotation that cannot be read is left to the checks of the data set, which report it.
    """
    if read_class_names(root) is not None:
        return None
    names: set[str] = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        try:
            names |= read_voc_object_names(path, path.stem)
        except DataError:
            continue
    return None if not names or names == set(VOC_CLASSES) else tuple(sorted(names))


def _recognize(path: Path) -> bool:
    return (path / "JPEGImages").is_dir() and any(
        (path / folder).is_dir() for folder in ("Annotations", "SegmentationClass")
    )


VOC = PathFormat(
    key="voc",
    name="a VOC folder",
    expected="a VOC folder (JPEGImages/ with Annotations/*.xml for boxes, or SegmentationClass/*.png for class maps)",
    recognize=_recognize,
    has_parts=lambda data: _find_pair(data) is not None,
    configure=_configure,
)
