"""Reading of the keypoints of a COCO file: the skeleton that its categories declare, and the keypoints of objects."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from pydantic import Field

from ...formats.checks import MAX_COORDINATE, Problem, keypoint_names_problem, keypoints_problem
from ...formats.coco import CocoKeypoints, Row, decode_blocks
from ...structures import Config, DataError, Skeleton, UsageError, find_flip_pairs, suggest

NO_KEYPOINTS_FIX = "give a file whose categories have keypoints, or leave out the data set's keypoints"


class CocoKeypointsConfig(Config):
    """How keypoints are read; their names and connections are those of the file's categories."""

    flip_pairs: tuple[tuple[str, str], ...] | None = None
    """Pairs of keypoints that change places when an image is mirrored. None: those whose names differ in ``left`` and
    ``right``."""
    offset: float = 0.5
    """Value to add to the coordinates of the file, and to subtract in results. 0.5 if they count pixels, as in COCO:
    the center of the first pixel is 0 there and 0.5 here (detectron2). 0 if they are continuous, as torchvision takes
    COCO's to be."""
    min_labeled: int = Field(default=0, ge=0)
    """Leave out images whose objects have fewer labeled keypoints in total. detectron2 trains with 1, torchvision's
    scripts with 10."""


def read_skeleton(
    categories: Sequence[Mapping[str, Any]], config: CocoKeypointsConfig, path: str | os.PathLike[str]
) -> Skeleton:
    """Return the keypoints of the selected ``categories``, which are entries of the file.

    Categories without keypoints are allowed beside others. Raises DataError if no category has keypoints, they are
    invalid, or two categories have different ones; UsageError for a flip pair of unknown names.
    """

    def problem(case: str, what: str, fix: str = "correct the categories") -> DataError:
        return DataError(what, fix, case=case, file=path)

    declared = [category for category in categories if category.get("keypoints")]
    if not declared:
        raise problem("no-keypoints", "no category has keypoints", NO_KEYPOINTS_FIX)
    first = declared[0]
    names, edges = first["keypoints"], first.get("skeleton") or []
    for category in declared[1:]:
        if category["keypoints"] != names:
            what = f"the categories {first['name']!r} and {category['name']!r} have different keypoints"
            raise problem("different-keypoints", what, "select categories with the same keypoints with class_names")
    if (fault := keypoint_names_problem(names)) is not None:
        raise problem(*fault)
    if not isinstance(edges, list) or not all(_is_edge(edge, len(names)) for edge in edges):
        what = f"a skeleton is a list of pairs of keypoints, counted from 1 to {len(names)}; found {edges!r:.120}"
        raise problem("bad-category", what)
    pairs = find_flip_pairs(names) if config.flip_pairs is None else _index_pairs(config.flip_pairs, names)
    return Skeleton(tuple(names), tuple((start - 1, end - 1) for start, end in edges), pairs, config.offset)


def _is_edge(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(end) is int and 1 <= end <= count for end in value)


def _index_pairs(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    used = [name for pair in pairs for name in pair]
    for name in used:
        if name not in names:
            raise UsageError(f"keypoints.flip_pairs: there is no keypoint {name!r}", suggest(name, names))
        if used.count(name) > 1:
            raise UsageError(f"keypoints.flip_pairs: {name!r} is in two pairs", "leave out one of them")
    return tuple((names.index(left), names.index(right)) for left, right in pairs)


class KeypointReader:
    """Reader of the keypoints of all annotations, which finds those that have to be checked on their own.

    Without a skeleton objects have no keypoints, and nothing is read.
    """

    def __init__(self, skeleton: Skeleton | None, count: int) -> None:
        self._skeleton = Skeleton(()) if skeleton is None else skeleton
        self.suspect: Bool[ndarray, " n"] = np.zeros(count, bool)
        """True for each annotation that :meth:`problem` must check."""
        self.missing: Bool[ndarray, " n"] = np.zeros(count, bool)
        """True for each annotation without ``keypoints``, of which none is labeled."""
        self._values: Float32[ndarray, "n k 3"] = np.zeros((count, self.count, 3), np.float32)

    @property
    def count(self) -> int:
        """The number of keypoints of an object; 0 without a skeleton."""
        return len(self._skeleton.names)

    def read(self, rows: Sequence[Row], wanted: Bool[ndarray, " n"]) -> None:
        """Read the keypoints of the wanted annotations of a file."""
        for first, block in decode_blocks(rows, CocoKeypoints) if self.count else ():
            listed: dict[int, CocoKeypoints] = {}
            for row in (first + np.flatnonzero(wanted[first : first + len(block)])).tolist():
                entry = block[row - first]
                self.missing[row] = entry is not None and not entry.keypoints
                self.suspect[row] = not self.missing[row]
                if entry is not None and entry.keypoints and len(entry.keypoints) == 3 * self.count:
                    listed[row] = entry
            values = np.array([entry.keypoints for entry in listed.values()]).reshape(len(listed), self.count, 3)
            declared = np.array([entry.num_keypoints for entry in listed.values()], float)  # None becomes NaN
            valid = (np.abs(values) < MAX_COORDINATE).all(axis=(1, 2)) & np.isin(values[..., 2], (0, 1, 2)).all(axis=1)
            valid &= np.isnan(declared) | (declared == (values[..., 2] > 0).sum(axis=1))
            indices = np.array(list(listed), np.int64)[valid]
            self._values[indices], self.suspect[indices] = values[valid], False

    def problem(self, entry: Mapping[str, Any]) -> Problem | None:
        """Check the keypoints of an annotation as it is in the file; return None if they are valid."""
        return keypoints_problem(entry.get("keypoints"), entry.get("num_keypoints"), self.count)

    def read_one(self, row: int, keypoints: Sequence[int | float]) -> None:
        """Store the keypoints of an annotation that :meth:`problem` accepted."""
        self._values[row] = np.reshape(keypoints, (-1, 3))

    def values(self, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m k 3"]:
        """Return the keypoints of these annotations in continuous pixels, with zeros where they are not labeled."""
        values = self._values[rows]
        values[..., :2] += np.float32(self._skeleton.offset)
        return np.where(values[..., 2:] > 0, values, np.float32(0))
