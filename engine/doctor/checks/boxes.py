"""Checks of boxes as they are written in a COCO file, and of objects that are annotated more than once."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ..file_objects import FileObjects
from ..findings import Finding
from ..splits import ExaminedData, Split, chosen_examples

SAME_BOX = 0.9
"""The IoU from which two objects of one class in an image are taken for the same one. Two objects this close are not
told apart by COCO's metric either, which counts a detection as correct up to an IoU threshold of 0.95."""
LEAVES = 1.0
"""A box that leaves its image by more pixels is not a rounding error."""
FEWEST_BOXES = 20
"""Fewer boxes say too little about the form of all."""
ALL = 0.99
"""The fraction of the boxes that must look like corners."""
AREA_TOLERANCE, AREA_PIXELS = 1.1, 10.0
"""An area contradicts its box if it is larger by this factor and by this number of pixels."""
EXTENT_TOLERANCE, EXTENT_PIXELS = 0.1, 5.0
"""Polygons contradict their box if a side differs by more than this fraction of the box and this number of pixels."""
SCALE_SPREAD = 0.05
"""If the extents of polygons are the same multiple of the boxes, within this, the polygons were not resized."""
ELONGATED = 10.0
"""The ratio of the sides from which a box is elongated."""
MANY_ELONGATED = 0.05


def overlapping_pairs(
    groups: Int64[ndarray, " n"], boxes: Float64[ndarray, "n 4"], threshold: float
) -> Int64[ndarray, "k 2"]:
    """Return the pairs (i, j), i < j, of boxes (xyxy) of the same group whose IoU is at least ``threshold``.

    Boxes are sorted by their left side; the right ends of a search are cut off where the left sides differ by more than
    the IoU allows, so that time grows with the number of boxes and not of pairs.
    """
    order = np.lexsort((boxes[:, 0], groups))
    group, box = groups[order], boxes[order]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    farthest = box[:, 0] + (1 - threshold) * (box[:, 2] - box[:, 0])  # of the left side of a partner
    found, active, distance = [], np.arange(len(box)), 0
    while len(active):
        distance += 1
        active = active[active + distance < len(box)]
        other = active + distance
        near = (group[active] == group[other]) & (box[other, 0] <= farthest[active])
        active, other = active[near], other[near]
        low, high = np.maximum(box[active, :2], box[other, :2]), np.minimum(box[active, 2:], box[other, 2:])
        overlap = np.clip(high - low, 0, None).prod(axis=1)
        same = overlap >= threshold * (area[active] + area[other] - overlap)
        found.append(np.stack([order[active[same]], order[other[same]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1) if found else np.zeros((0, 2), np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def check_repeated_objects(data: ExaminedData) -> Iterable[Finding]:
    """Find objects that are annotated twice, with the same class or with two."""
    for split in data.splits:
        if split.pairs is None or split.boxes is None or not len(split.pairs):
            continue
        boxes = split.boxes.astype(np.float64)
        pairs = overlapping_pairs(split.pairs[:, 0].astype(np.int64), boxes, SAME_BOX)
        same = split.pairs[pairs[:, 0], 1] == split.pairs[pairs[:, 1], 1]
        twice, other = np.unique(pairs[same, 1]), np.unique(pairs[~same, 1])
        if len(twice):
            yield Finding(
                "repeated-object", "warning", split.name, f"objects are annotated twice (IoU {SAME_BOX} or more)",
                "delete one of the two", len(twice), len(boxes), chosen_examples(split, twice),
            )  # fmt: skip
        if len(other):
            yield Finding(
                "two-classes", "note", split.name, f"objects have the box of an object of another class "
                f"(IoU {SAME_BOX} or more)", "decide for one of the classes, if it is one object", len(other),
                len(boxes), chosen_examples(split, other),
            )  # fmt: skip


def check_elongated_boxes(data: ExaminedData) -> Iterable[Finding]:
    """Find out whether many boxes are elongated, which square windows and usual anchors fit badly."""
    for split in data.splits:
        if split.boxes is None or len(split.boxes) < FEWEST_BOXES:
            continue
        sides = np.maximum(split.boxes[:, 2:] - split.boxes[:, :2], 1e-3)
        elongated = np.flatnonzero(sides.max(axis=1) > ELONGATED * sides.min(axis=1))
        if len(elongated) > MANY_ELONGATED * len(sides):
            yield Finding(
                "elongated-boxes", "note", split.name, f"boxes are more than {ELONGATED:g} times as long as wide",
                "check the boxes; choose anchors of such ratios", len(elongated), len(sides),
                chosen_examples(split, elongated),
            )  # fmt: skip


def check_written_boxes(data: ExaminedData) -> Iterable[Finding]:
    """Find boxes that reach out of their image, and boxes that look like corners."""
    for split in data.splits:
        objects = split.file_objects
        if objects is None or not len(objects.rows):
            continue
        if looks_like_corners(objects):
            yield Finding(
                "corner-boxes", "error", split.name,
                "boxes have a width above their x and a height above their y, as x1, y1, x2, y2 have",
                "write x, y, width, height", len(objects.rows), len(objects.rows),
                chosen_examples(split, range(len(objects.rows)), in_file=True),
            )  # fmt: skip
        leaving = np.flatnonzero(boxes_out_of_image(objects) > LEAVES)
        if len(leaving):
            yield Finding(
                "box-out-of-image", "warning", split.name, "boxes reach out of their image by more than a pixel",
                "clip or correct them", len(leaving), len(objects.rows),
                chosen_examples(split, leaving, in_file=True),
            )  # fmt: skip


def boxes_out_of_image(objects: FileObjects) -> Float64[ndarray, " n"]:
    """Return by how many pixels each box reaches out of its image; 0 for boxes inside and unreadable ones."""
    corners = objects.corners
    beyond = np.maximum(-corners, corners - objects.sizes_of_objects[:, [1, 0, 1, 0]]).max(axis=1)
    return np.where(np.isfinite(beyond), np.maximum(beyond, 0), 0)


def looks_like_corners(objects: FileObjects) -> bool:
    """Return whether nearly all boxes (x, y, w, h) read as corners are boxes in their image, and many do not as they
    are."""
    boxes = objects.boxes[np.isfinite(objects.boxes).all(axis=1)]
    if len(boxes) < FEWEST_BOXES:
        return False
    as_corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return bool(as_corners.mean() >= ALL and (boxes_out_of_image(objects) > LEAVES).mean() > 1 - ALL)


def check_areas(data: ExaminedData) -> Iterable[Finding]:
    """Find areas larger than their box, and polygons that do not fit their box."""
    for split in data.splits:
        if (objects := split.file_objects) is None:
            continue
        limit = np.maximum(objects.boxes[:, 2], 0) * np.maximum(objects.boxes[:, 3], 0)
        wrong = np.flatnonzero(objects.areas > AREA_TOLERANCE * limit + AREA_PIXELS)
        if len(wrong):
            yield Finding(
                "area-above-box", "warning", split.name, "areas are larger than their box",
                "correct the area: COCO's metric divides objects by it into small, medium and large", len(wrong),
                len(objects.rows), chosen_examples(split, wrong, in_file=True),
            )  # fmt: skip
        yield from _check_extents(split, objects)


def _check_extents(split: Split, objects: FileObjects) -> Iterable[Finding]:
    wrong = contradicting_polygons(objects)
    if not len(wrong):
        return
    scale = polygon_scale(objects)
    examples = chosen_examples(split, wrong, in_file=True)
    total = int(np.isfinite(objects.extents[:, 0]).sum())
    if scale is not None:
        yield Finding(
            "unscaled-polygons", "error", split.name, f"polygons are {scale:.3g} times as large as their boxes",
            "resize the polygons as the images and boxes were", len(wrong), total, examples,
        )  # fmt: skip
    else:
        yield Finding(
            "box-contradicts-mask", "warning", split.name, "polygons do not end where their box does",
            "correct the box or the polygons", len(wrong), total, examples,
        )  # fmt: skip


def contradicting_polygons(objects: FileObjects) -> Int64[ndarray, " k"]:
    """Return the indices of the annotations, other than crowds, whose polygons end elsewhere than their box."""
    corners = objects.corners
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 0)
    tolerance = np.maximum(EXTENT_TOLERANCE * np.concatenate([sides, sides], axis=1), EXTENT_PIXELS)
    limits = objects.sizes_of_objects[:, [1, 0, 1, 0]]
    differ = np.abs(np.clip(objects.extents, 0, limits) - np.clip(corners, 0, limits)) > tolerance
    differ |= np.abs(objects.extents - corners) > 4 * tolerance + limits  # far outside both are clipped alike
    return np.flatnonzero(differ.any(axis=1) & ~objects.crowd)


def polygon_scale(objects: FileObjects) -> float | None:
    """Return the factor by which nearly all polygons are larger than their boxes; None if there is none, or it is 1."""
    usable = np.isfinite(objects.extents[:, 0]) & (objects.boxes[:, 2:] > 0).all(axis=1) & ~objects.crowd
    if usable.sum() < 2:
        return None
    sides = objects.extents[usable, 2:] - objects.extents[usable, :2]
    ratios = (sides / objects.boxes[usable, 2:]).ravel()
    factor = float(np.median(ratios))
    agree = np.abs(ratios / factor - 1) < SCALE_SPREAD if factor > 0 else np.zeros(1, bool)
    return factor if abs(factor - 1) > SCALE_SPREAD and agree.mean() > 0.8 else None
