"""The boxes of what an image shows of its objects: zeros where that is nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray

from ..polygons import PolygonMask, clip_polygon_mask
from ..types import Objects

_MARGIN = 1e-3
"""Pixels. What reaches no further into an image than this is taken for a border's rounding."""


def fit_boxes_to_masks(objects: Objects, which: Bool[ndarray, " n"], size: tuple[int, int]) -> Objects:
    """With the boxes of what an image of this (height, width) shows of the masks or outlines of some; the others keep
    theirs. Objects of which that is nothing are dropped."""
    fitted = boxes = objects.boxes
    if objects.masks is not None:
        fitted = boxes_from_bitmaps(objects.masks.view(bool))
    elif objects.polygon_masks is not None:
        fitted = boxes_from_polygon_masks(objects.polygon_masks, size)
    boxes = np.where(which[:, None], fitted, boxes)
    return replace(objects, boxes=boxes)[visible_rows(boxes)]


def has_visible_mask(objects: Objects) -> Bool[ndarray, " n"]:
    """Which of them have a mask or an outline that is not empty: one that is says nothing against its box."""
    if objects.masks is not None:
        return np.asarray(objects.masks.view(bool).any(axis=(1, 2)))
    if objects.polygon_masks is not None:
        return np.array([len(polygon_mask) > 0 for polygon_mask in objects.polygon_masks], bool)
    return np.zeros(len(objects.boxes), bool)


def visible_rows(boxes: Float32[ndarray, "n 4"]) -> Int64[ndarray, " k"]:
    """Which of the boxes, clipped to their image, show anything of it.

    A box that a transform leaves or makes smaller than a pixel is kept, as torchvision and detectron2 keep it: a data
    set's ``min_box`` is in original pixels. What is dropped is what ends at a border and is left with a side of some
    hundred-thousandths of a pixel, since albumentations has boxes in shares of the image, in 32 bits.
    """
    return np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > _MARGIN).all(axis=1))


def boxes_from_bitmaps(masks: Bool[ndarray, "n h w"]) -> Float32[ndarray, "n 4"]:
    """From the first pixel of each to the end of its last."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def boxes_from_polygon_masks(polygon_masks: Sequence[PolygonMask], size: tuple[int, int]) -> Float32[ndarray, "n 4"]:
    """Of the part of each that lies in an image of this (height, width)."""
    return np.array([_box_in_image(polygon_mask, size) for polygon_mask in polygon_masks], np.float32).reshape(-1, 4)


def _box_in_image(polygon_mask: PolygonMask, size: tuple[int, int]) -> Float[ndarray, "4"]:
    """What is seen reaches as far as the edges do inside the image, and to the corners that the object covers."""
    height, width = size
    limits = np.array([width, height])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    within = corners.clip(_MARGIN, limits - _MARGIN)
    covered = [corner for corner, near in zip(corners, within, strict=True) if _is_covered(near, polygon_mask)]
    points = np.concatenate([_ends_inside(polygon_mask, limits), np.reshape(covered, (-1, 2))])
    if not len(points):
        return np.zeros(4)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _ends_inside(polygon_mask: PolygonMask, limits: Int64[ndarray, "2"]) -> Float32[ndarray, "k 2"]:
    """The ends of what lies between 0 and ``limits`` of each edge, unless it runs along one of these borders: there the
    object may lie on the other side."""
    edges = clip_polygon_mask(polygon_mask, (limits[1].item(), limits[0].item())).edges
    middles = (edges[:, :2] + edges[:, 2:]) / 2
    inside = ((middles > _MARGIN) & (middles < limits - _MARGIN)).all(axis=1)
    return edges[inside].reshape(-1, 2)


def _is_covered(point: Float64[ndarray, "2"], polygon_mask: PolygonMask) -> bool:
    """Whether a ray to the right crosses the edges of a part an odd number of times."""
    (x, y), (x1, y1, x2, y2) = point, polygon_mask.edges.T.astype(np.float64)
    crossing = (y1 <= y) != (y2 <= y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing &= x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return bool((np.bincount(polygon_mask.parts[crossing]) % 2).any())
