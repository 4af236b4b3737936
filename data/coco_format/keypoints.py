"""Reading of keypoints from a COCO file: the skeleton declared by its categories, and the keypoints of objects."""

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
    """How keypoints are read. Their names and connections are taken from the categories of the file."""

    flip_pairs: tuple[tuple[str, str], ...] | None = None
    """Pairs of keypoints that a horizontal flip swaps. None: those whose names differ only in ``left`` and
    ``right``."""
    offset: float = 0.5
    """Value added to the coordinates read from the file, and subtracted again in results. Use 0.5 if they are pixel
    indices, as detectron2 reads COCO's: the center of the first pixel is 0 in the file and 0.5 in Vertebra. Use 0 if
    they are continuous coordinates, as torchvision reads COCO's."""
    min_labeled: int = Field(default=0, ge=0)
    """Leave out images whose objects have fewer labeled keypoints in total. detectron2 trains with 1, torchvision's
    reference scripts with 10."""


def read_skeleton(
    categories: Sequence[Mapping[str, Any]], config: CocoKeypointsConfig, path: str | os.PathLike[str]
) -> Skeleton:
    """Return the skeleton that the selected ``categories``, entries of the file, declare.

    Some of the categories may have no keypoints. Raises DataError if none has keypoints, if the keypoints are invalid,
    or if two categories have different ones, and UsageError for flip pairs with unknown or repeated names.
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
        what = f"a skeleton is a list of pairs of keypoint numbers from 1 to {len(names)}; found {edges!r:.120}"
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
    """A vectorized reader of the keypoints of all annotations, which marks those that need an individual check.

    Without a skeleton, nothing is read, and the objects have no keypoints.
    """

    def __init__(self, skeleton: Skeleton | None, count: int) -> None:
        self._skeleton = Skeleton(()) if skeleton is None else skeleton
        self.suspect: Bool[ndarray, " n"] = np.zeros(count, bool)
        """True for each annotation that :meth:`problem` must check."""
        self.missing: Bool[ndarray, " n"] = np.zeros(count, bool)
        """True for each annotation without ``keypoints``, whose keypoints are then unlabeled."""
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
        """Check the keypoints of one annotation of the file; return None if they are valid."""
        return keypoints_problem(entry.get("keypoints"), entry.get("num_keypoints"), self.count)

    def read_one(self, row: int, keypoints: Sequence[int | float]) -> None:
        """Store the keypoints of one annotation, in which :meth:`problem` found no problem."""
        self._values[row] = np.reshape(keypoints, (-1, 3))

    def values(self, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m k 3"]:
        """Return the keypoints of the given annotations in continuous pixels; unlabeled keypoints are zeros."""
        values = self._values[rows]
        values[..., :2] += np.float32(self._skeleton.offset)
        return np.where(values[..., 2:] > 0, values, np.float32(0))
