"""Checks of the fields of an annotation or a result in COCO's format: ids, box, area, crowd flag and keypoints.

Each check returns None for a valid value, and otherwise a :class:`Problem`. Its description follows the name of the
entry in a message: "entry 3 has the area nan, which is not a finite number of 0 or more".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from ..structures import is_number

MAX_COORDINATE = 2**63
"""The coordinates of keypoints are below it: their squares are finite, and so are they in single precision."""


class Problem(NamedTuple):
    """A problem with an entry of a file: the short name of the case, and a description for error messages."""

    case: str
    what: str


@dataclass(frozen=True, slots=True)
class KnownIds:
    """The ids of the images or the categories of a file, and the types of these ids."""

    ids: frozenset[int | str]
    type_names: tuple[str, ...]
    where: str
    """The name of the file's role in messages, such as ``the ground truth``."""

    @classmethod
    def of(cls, ids: Iterable[int | str], where: str) -> "KnownIds":
        ids = frozenset(ids)
        return cls(ids, tuple(sorted({type(known).__name__ for known in ids})), where)

    def indices(self) -> dict[int | str, int]:
        """Return a number for each id: 0, 1, ... in any order."""
        return {known: index for index, known in enumerate(self.ids)}


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether a value is a string that UTF-8 can encode and that has no NUL, where C code would end it."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return False
    return True


def as_id(value: Any) -> int | str | None:
    """Return the value if it is a valid id, that is text or an integer of 64 bits; None otherwise."""
    fits = is_text(value) or (type(value) is int and -(2**63) <= value < 2**63)
    return value if fits else None


def id_problem(noun: str, value: Any, known: KnownIds) -> Problem | None:
    """Check that an id is one of the known ones; ``noun`` is ``image`` or ``category``."""
    # For a set, 1.0 and True equal 1, but they are not valid ids.
    if type(value) in (int, str) and value in known.ids:
        return None
    given = type(value).__name__
    if known.type_names and given not in known.type_names:
        expected = " or ".join(known.type_names)
        return Problem(
            f"{noun}-id-type",
            f"has the {noun} id {value!r:.80}, type mismatch: {given}, where {known.where} has {expected}",
        )
    return Problem(f"unknown-{noun}", f"is about {noun} {value!r:.80}, which is not in {known.where}")


def box_problem(box: Any, empty_allowed: bool = True) -> Problem | None:
    """Check a box (x, y, width, height) in pixels; a side of 0 is a problem unless ``empty_allowed``."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        return Problem("malformed-box", f"has the box {box!r:.80}, which is not four numbers")
    x, y, width, height = box
    if not all(map(math.isfinite, (x, y, float(x) + width, float(y) + height))):
        return Problem("non-finite-box", f"has the box {box}, which is not finite")
    if width < 0 or height < 0:
        what = f"has the box {box}, whose width or height is negative (x, y, width, height is expected)"
        return Problem("negative-box", what)
    if not empty_allowed and (width == 0 or height == 0):
        return Problem("empty-box", f"has the box {box}, which has no area")
    return None


def area_problem(area: Any) -> Problem | None:
    """Check an area in square pixels; None, a missing area, is valid."""
    if area is None or (is_number(area) and 0 <= area < math.inf):
        return None
    return Problem("bad-area", f"has the area {area!r:.80}, which is not a finite number of 0 or more")


def crowd_problem(crowd: Any) -> Problem | None:
    """Check an ``iscrowd`` flag; text is a problem, since "0" is true in Python."""
    if isinstance(crowd, int) and crowd in (0, 1):
        return None
    return Problem("bad-crowd", f"has the iscrowd {crowd!r:.80}, which is neither 0 nor 1")


def keypoint_names_problem(names: Any) -> Problem | None:
    """Check the ``keypoints`` of a category, a list of unique names."""
    if isinstance(names, list) and all(map(is_text, names)) and len(set(names)) == len(names):
        return None
    return Problem("bad-category", f"keypoints need unique names; found {names!r:.120}")


def keypoints_problem(keypoints: Any, labeled: Any, count: int) -> Problem | None:
    """Check the ``keypoints`` (x, y, visibility, ...) of an annotation, and ``labeled``, its ``num_keypoints``.

    ``count`` is the number of keypoints of the category. None (a missing field) and an empty list are valid: no
    keypoint is labeled.
    """
    if keypoints is None or keypoints == []:
        return None
    if not isinstance(keypoints, list | tuple) or len(keypoints) != 3 * count:
        given = f"{len(keypoints)} numbers" if isinstance(keypoints, list | tuple) else repr(keypoints)
        what = f"has the keypoints {given:.80}, which are not x, y and visibility of {count} keypoints"
        return Problem("malformed-keypoints", what)
    for index in range(count):
        point = keypoints[3 * index : 3 * index + 3]
        if not all(map(is_number, point)) or not all(map(math.isfinite, point)):
            return Problem("bad-keypoint", f"has the keypoint {index} {point!r:.80}, which is not three finite numbers")
        if max(map(abs, point)) >= MAX_COORDINATE:
            return Problem("bad-keypoint", f"has the keypoint {index} {point!r:.80}, which is beyond 2^63")
        if point[2] not in (0, 1, 2):
            what = f"has the keypoint {index} {point}, whose visibility is not 0 (unlabeled), 1 (hidden) or 2 (visible)"
            return Problem("bad-visibility", what)
    found = sum(visibility > 0 for visibility in keypoints[2::3])
    if labeled is not None and labeled != found:
        what = f"has the num_keypoints {labeled!r:.80}, but {found} keypoints with a visibility above 0"
        return Problem("keypoint-count", what)
    return None
