"""Folders in PASCAL VOC's layout, or with XML files of its format in another layout, given by their path."""

from pathlib import Path

from ...formats import read_class_names, read_voc_object_names
from ...formats.mask_values import read_label_map
from ...structures import DataError, UsageError
from ..dataset import DatasetConfig
from ..mask_folder import MaskFolderConfig
from ..voc_format import VOC_CLASSES, VocConfig, VocSegmentationConfig
from .base import DataPath, Part, PathFormat

PAIRS = (("train", "val"), ("train", "valid"), ("trainval", "test"), ("train", "test"))
"""The names of image lists, or of folders, for training and validation, in the order of preference."""
LAYOUTS = (
    ("JPEGImages", "Annotations"),
    ("images", "annotations"),
    ("images", "Annotations"),
    ("images", "xmls"),
    (".", "."),
)
"""The folders of the images and of the annotations below the root, in the order in which they are looked for."""
FIRST_BYTES = 1000
"""The number of bytes of an XML file in which its root element is looked for."""


def _configure(data: DataPath, part: Part) -> DatasetConfig:
    """Return the config for boxes or, for the task ``semantic``, for class maps."""
    if data.images is not None:
        raise UsageError(
            f"the images of a VOC folder are in {data.path / 'JPEGImages'}", "leave out --images (images= in Python)"
        )
    pair = _find_folders(data.path)
    folders = [data.path] if pair is None else [data.path / name for name in pair]
    root = folders[-1 if part == "val" else 0]
    splits = _splits(data, part) if pair is None else ()
    if data.task == "semantic":
        if (root / "labelmap.txt").is_file() and read_class_names(root) is None:  # colors, as CVAT and Datumaro export
            entries = read_label_map(root / "labelmap.txt")
            return MaskFolderConfig(
                images=root / "JPEGImages", masks=root / "SegmentationClass",
                class_names=tuple(dict.fromkeys(name for name, _ in entries)),
                values=tuple((color, name) for name, color in entries),
            )  # fmt: skip
        return VocSegmentationConfig(root=root, splits=splits)
    layout = _find_layout(root)
    if layout is None:
        raise UsageError(
            "this VOC folder has class maps, but no Annotations/*.xml for boxes",
            "choose a model with a semantic head, or add the annotations", file=root,
        )  # fmt: skip
    return VocConfig(
        root=root, splits=splits, images=layout[0], annotations=layout[1], class_names=_find_class_names(folders)
    )


def _find_layout(root: Path) -> tuple[str, str] | None:
    """Return the folders of the images and of the annotations; None if there are no annotations of VOC's format."""
    for images, annotations in LAYOUTS:
        if (root / images).is_dir() and (root / annotations).is_dir():
            first = next((root / annotations).glob("*.xml"), None)
            if first is not None and _is_voc_file(first):
                return images, annotations
    return None


def _is_voc_file(path: Path) -> bool:
    """Return whether the root element of an XML file is that of VOC's annotations; true if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError:
        return True
    return b"<annotations" not in start


def _find_folders(root: Path) -> tuple[str, str] | None:
    """Return the folders for training and validation that have a layout of their own, as Roboflow exports them."""
    if (root / "JPEGImages").is_dir():
        return None
    return next(
        (pair for pair in PAIRS if all((root / name).is_dir() and _find_layout(root / name) for name in pair)), None
    )


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


def _find_class_names(roots: list[Path]) -> tuple[str, ...] | None:
    """Return the names of the objects in the annotations, sorted; None if class_names.txt or VOC has them.

    An annotation that cannot be read is left to the checks of the data set, which report it.
    """
    if read_class_names(roots[0]) is not None:
        return None
    names: set[str] = set()
    for root in roots:
        layout = _find_layout(root)
        for path in sorted((root / layout[1]).glob("*.xml")) if layout is not None else ():
            try:
                names |= read_voc_object_names(path, path.stem)
            except DataError:
                continue
    return None if not names or names == set(VOC_CLASSES) else tuple(sorted(names))


def _recognize(path: Path) -> bool:
    if not path.is_dir():
        return False
    if (path / "JPEGImages").is_dir() and (path / "SegmentationClass").is_dir():
        return True
    return _find_layout(path) is not None or _find_folders(path) is not None


VOC = PathFormat(
    key="voc",
    name="a VOC folder",
    expected="a VOC folder (JPEGImages/ with Annotations/*.xml for boxes, or SegmentationClass/*.png for class maps)",
    recognize=_recognize,
    has_parts=lambda data: _find_pair(data) is not None or _find_folders(data.path) is not None,
    configure=_configure,
)
