"""Reading of PASCAL VOC files: annotations ``Annotations/STEM.xml``, image lists, and lists of class names.

The XML parser refuses external files and entities, which could read other files or fill the memory.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from ..structures import DataError, suggest
from .xml_files import parse_xml

SIDES = ("xmin", "ymin", "xmax", "ymax")
MOST_DIGITS = 10
"""A height or width must have fewer digits; Python raises for thousands of digits."""


VocCorners = Literal["inclusive", "continuous", "shifted"]
"""What the corners in a file mean, see :class:`vertebra.data.VocConfig`."""
CORNER_SHIFTS: dict[VocCorners, tuple[float, float]] = {"inclusive": (1, 0), "continuous": (0, 0), "shifted": (1, 1)}
"""What is subtracted from (xmin and ymin, xmax and ymax) to get continuous coordinates. ``inclusive``: pixel 1 spans 0
to 1, so only the top left corner moves."""


@dataclass(frozen=True, slots=True)
class VocObject:
    """An object as annotated in the file, with the corners as they are there."""

    id: str
    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    def corners(self, convention: "VocCorners" = "inclusive") -> tuple[float, float, float, float]:
        """Return the box as continuous xyxy."""
        x1, y1, x2, y2 = self.box
        first, last = CORNER_SHIFTS[convention]
        return x1 - first, y1 - first, x2 - last, y2 - last


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """The annotation file of one image: its (height, width), if given, and its objects, or the errors in them."""

    size: tuple[int, int] | None
    objects: list[VocObject | DataError]


def read_voc_annotation(path: Path, image_id: str, class_names: Sequence[str]) -> VocAnnotation:
    """Read and check an annotation file; raise DataError, with the line if known, if it cannot be read.

    An object of a class that is not in ``class_names`` is an error in the result.
    """
    root = _parse(path, image_id)
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        object_id = f"{image_id}#{number}"
        try:
            objects.append(_read_object(element, object_id, class_names))
        except DataError as error:
            objects.append(
                DataError(error.what, error.fix, case=error.case, file=path, image_id=image_id, annotation_id=object_id)
            )
    return VocAnnotation(_read_size(root), objects)


def read_voc_object_names(path: Path, image_id: str) -> set[str]:
    """Return the class names of the objects in an annotation file; raise DataError if it cannot be read."""
    names = {element.findtext("name", "").strip() for element in _parse(path, image_id).findall("object")}
    return names - {""}


def read_voc_list(folder: Path, split: str) -> list[str]:
    """Return the image stems in the list ``folder/SPLIT.txt``; raise DataError if there is no such list."""
    try:
        return _read_lines(folder / f"{split}.txt")
    except FileNotFoundError:
        others = [path.stem for path in folder.glob("*.txt")]
        raise DataError(
            "there is no such list", suggest(split, others), case="missing-list", file=folder / f"{split}.txt"
        ) from None


def read_class_names(root: Path) -> tuple[str, ...] | None:
    """Return the lines of ``class_names.txt``, or None if there is no such file.

    Raises DataError if it is empty or names a class twice.
    """
    path = root / "class_names.txt"
    if not path.exists():
        return None
    names = ["background" if name == "_background_" else name for name in _read_lines(path)]  # as LabelMe names it
    if not names or len(set(names)) < len(names):
        what = "a class is named twice" if names else "no class is named"
        raise DataError(what, "write each class once, one per line", case="bad-class-names", file=path)
    return tuple(names)


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the non-blank lines of a text file, stripped; raise DataError if the file cannot be read."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        what = f"not valid UTF-8 at byte {error.start}"
        raise DataError(what, "save it as UTF-8", case="bad-list", file=path) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", "check the path", case="unreadable-file", file=path
        ) from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _parse(path: Path, image_id: str) -> Element:
    """Parse the XML of an annotation file and return its root; raise DataError if that is impossible."""

    try:
        return parse_xml(path, "annotation", "give a PASCAL VOC annotation", image_id)
    except FileNotFoundError:
        raise DataError(
            "the image is listed, but has no annotation file", "add it, or remove the image from the list",
            case="missing-annotation", file=path, image_id=image_id,
        ) from None  # fmt: skip


def _read_size(root: Element) -> tuple[int, int] | None:
    """Return the (height, width) of the image; None if it is missing, or 0 as some tools write it."""
    texts = [root.findtext(f"size/{side}", "").strip() for side in ("height", "width")]
    if not all(text.isdecimal() and len(text) < MOST_DIGITS and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])


def _read_object(element: Element, object_id: str, class_names: Sequence[str]) -> VocObject:
    """Read an object; raise DataError, without a file name, if it cannot be used."""
    name = element.findtext("name", "").strip()
    if not name:
        raise DataError("the object has no name", case="no-name")
    if name not in class_names:
        raise DataError(
            f"the object is a {name!r}, which is not one of the classes",
            f"{suggest(name, class_names)}; name all classes in dataset.class_names", case="unknown-category",
        )  # fmt: skip
    difficult = element.findtext("difficult", "").strip() or "0"
    if difficult not in ("0", "1"):
        raise DataError(f"difficult is 0 or 1, found {difficult!r:.80}", case="bad-difficult")
    texts = [element.findtext(f"bndbox/{side}", "").strip() for side in SIDES]
    missing = [side for side, text in zip(SIDES, texts, strict=True) if not text]
    if missing:
        raise DataError(f"the bndbox has no {' and no '.join(missing)}", case="malformed-box")
    try:
        x1, y1, x2, y2 = map(float, texts)
    except ValueError:
        raise DataError(f"the bndbox must be four numbers, found {texts!r:.80}", case="malformed-box") from None
    shown = f"the bndbox ({', '.join(texts):.80})"
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise DataError(f"{shown} is not finite", case="non-finite-box")
    if x2 < x1 or y2 < y1:
        raise DataError(f"{shown} ends before it begins (xmin, ymin, xmax, ymax)", case="negative-box")
    return VocObject(object_id, name, (x1, y1, x2, y2), difficult == "1")
