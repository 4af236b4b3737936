"""A PASCAL VOC annotation, ``Annotations/STEM.xml``: read without following what an XML file can lead to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from ...structures import DataError, suggest

SIDES = ("xmin", "ymin", "xmax", "ymax")
MOST_DIGITS = 10
"""Of a height or width; Python refuses to read thousands."""


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object as the file has it: pixels are counted from 1, and a box includes those of its ends."""

    identity: str
    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    def corners(self) -> tuple[float, float, float, float]:
        """The box as xyxy, continuous: pixel 1 reaches from 0 to 1, so only the first corner moves."""
        x1, y1, x2, y2 = self.box
        return x1 - 1, y1 - 1, x2, y2


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """What is said of an image: its (height, width), if it is, and each object or why it cannot be used."""

    size: tuple[int, int] | None
    objects: list[VocObject | DataError]


def read_annotation(path: Path, image_id: str, known: Sequence[str]) -> VocAnnotation:
    """Read and check an annotation; DataError, naming the line where it is known, for one that cannot be read.

    ``known`` are the names that an object may have.
    """
    root = _parse(path, image_id)
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        identity = f"{image_id}#{number}"
        try:
            objects.append(_read_object(element, identity, known))
        except DataError as error:
            fix = f"{error.fix or 'correct it'}, or pass --bad-data=skip"
            objects.append(
                DataError(error.what, fix, case=error.case, file=path, image_id=image_id, annotation_id=identity)
            )
    return VocAnnotation(_read_size(root), objects)


def _parse(path: Path, image_id: str) -> Element:
    def fault(what: str, fix: str = "write it anew", case: str = "bad-xml") -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        root: Any = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        what = "the image is listed, but has no annotation file"
        raise fault(what, "add it, or take the image off the list", "missing-annotation") from None
    except ParseError as error:
        line, column = error.position
        raise fault(f"no valid XML at line {line}, column {column + 1}: {str(error).partition(':')[0]}") from None
    except DefusedXmlException as error:
        what = f"defines entities of its own ({type(error).__name__}), which can fill the memory or read other files"
        raise fault(what, "write it without them", "unsafe-xml") from None
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}", "check the path", "unreadable-file") from error
    except (LookupError, ValueError) as error:  # an encoding that the parser does not know
        raise fault(f"no readable XML: {error}", "save it as UTF-8") from None
    if root.tag != "annotation":
        raise fault(f"expected <annotation> at the top, found <{root.tag}>", "give a PASCAL VOC annotation")
    return root


def _read_size(root: Element) -> tuple[int, int] | None:
    """None where it is left out, or 0 as some tools write it."""
    texts = [root.findtext(f"size/{side}", "").strip() for side in ("height", "width")]
    if not all(text.isdecimal() and len(text) < MOST_DIGITS and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])


def _read_object(element: Element, identity: str, known: Sequence[str]) -> VocObject:
    """DataError, without its place, for an object that cannot be used."""
    name = element.findtext("name", "").strip()
    if not name:
        raise DataError("the object has no name", case="no-name")
    if name not in known:
        raise DataError(
            f"the object is a {name!r}, which is none of the classes",
            f"{suggest(name, known)}; name all classes in dataset.class_names", case="unknown-category",
        )  # fmt: skip
    difficult = element.findtext("difficult", "").strip() or "0"
    if difficult not in ("0", "1"):
        raise DataError(f"difficult is 0 or 1, found {difficult!r:.80}", case="bad-difficult")
    texts = [element.findtext(f"bndbox/{side}", "").strip() for side in SIDES]
    if missing := [side for side, text in zip(SIDES, texts, strict=True) if not text]:
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
    return VocObject(identity, name, (x1, y1, x2, y2), difficult == "1")
