"""Polygon masks in the data pipeline, as edges: made from polygons or from the pixel outlines of bitmaps."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from numpy import ndarray

from ..structures import PolygonMasks
from .box_clipping import MARGIN


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMask:
    """The mask of one object as edges, in continuous pixels; see :class:`PolygonMasks` for edges and parts."""

    edges: Float32[ndarray, "e 4"]
    """(x1, y1, x2, y2) of each edge."""
    parts: Int64[ndarray, " e"]
    """The part of the object that each edge belongs to, counted from 0."""

    @classmethod
    def of_polygons(cls, polygons: Sequence[Float32[ndarray, "_ 2"]]) -> "PolygonMask":
        """Make a mask with one part per polygon; the last point of a polygon is joined to its first."""
        edges = [np.concatenate([points, np.roll(points, -1, axis=0)], axis=1) for points in polygons]
        return cls(np.concatenate(edges), np.repeat(np.arange(len(edges)), [len(part) for part in edges]))

    @classmethod
    def of_bitmap(cls, mask: UInt8[ndarray, "h w"]) -> "PolygonMask":
        """Make a mask of one part, whose edges run along the pixel borders of a bitmap."""
        edges = np.concatenate([_upright_borders(mask), _upright_borders(mask.T)[:, [1, 0, 3, 2]]])
        return cls(edges.astype(np.float32), np.zeros(len(edges), np.int64))

    def with_edges(self, edges: Float32[ndarray, "e 4"]) -> "PolygonMask":
        """Return a copy with other edges, which belong to the same polygons."""
        return PolygonMask(edges, self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _upright_borders(mask: UInt8[ndarray, "h w"]) -> Int64[ndarray, "k 4"]:
    """Return the vertical edges (x1, y1, x2, y2) between inside and outside of a bitmap, collinear ones joined."""
    inside = np.pad(mask > 0, ((0, 0), (1, 1)))
    changes = np.diff((inside[:, 1:] != inside[:, :-1]).astype(np.int8), axis=0, prepend=0, append=0)
    # Transposed, so that argwhere goes down each column and the starts and ends of edges have the same order.
    return np.concatenate([np.argwhere(changes.T == 1), np.argwhere(changes.T == -1)], axis=1)


def polygon_vertices(polygon_masks: Iterable[PolygonMask]) -> Float32[ndarray, "k 2"]:
    """Return both end points of every edge of all masks."""
    return np.concatenate([np.zeros((0, 4), np.float32), *(mask.edges for mask in polygon_masks)]).reshape(-1, 2)


def with_vertices(polygon_masks: Sequence[PolygonMask], points: Float[ndarray, "k 2"]) -> tuple[PolygonMask, ...]:
    """Return the masks with new end points of their edges, in the order of :func:`polygon_vertices`."""
    edges = points.astype(np.float32).reshape(-1, 4)
    ends = itertools.accumulate(map(len, polygon_masks))
    return tuple(mask.with_edges(edges[end - len(mask) : end]) for mask, end in zip(polygon_masks, ends, strict=True))


def clip_polygon_mask(polygon_mask: PolygonMask, size: tuple[int, int]) -> PolygonMask:
    """Clip a polygon mask to an image of ``size`` (height, width).

    Every edge is split where it crosses the line through a border of the image, and points outside are moved to the
    nearest point of the image. Moved edges run along the border, so that inside the image a ray crosses an odd number
    of edges exactly where it did before.
    """
    limits = np.array([size[1], size[0]], np.float64)
    ends = polygon_mask.edges.reshape(-1, 2)
    if (ends <= 0).all(axis=0).any() or (ends >= limits).all(axis=0).any():  # the mask is entirely beyond one border
        return PolygonMask(polygon_mask.edges[:0], polygon_mask.parts[:0])
    start, step = np.split(polygon_mask.edges.astype(np.float64)[:, None], [2], axis=2)
    step = step - start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.concatenate([-start / step, (limits - start) / step], axis=2)[:, 0]
    fractions = np.sort(np.nan_to_num(crossings, posinf=1, neginf=0).clip(0, 1), axis=1)
    fractions = np.pad(fractions, ((0, 0), (1, 1)), constant_values=(0, 1))[:, :, None]
    points = (start + fractions * step).clip(0, limits).astype(np.float32)
    edges = np.concatenate([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 4)
    has_length = (edges[:, :2] != edges[:, 2:]).any(axis=1)
    return PolygonMask(edges[has_length], np.repeat(polygon_mask.parts, 5)[has_length])


def pad_polygon_masks(polygon_masks: Sequence[PolygonMask]) -> PolygonMasks:
    """Convert masks to padded tensors for a target; horizontal edges, which no horizontal ray crosses, are left out."""
    not_horizontal = [mask.edges[:, 1] != mask.edges[:, 3] for mask in polygon_masks]
    return PolygonMasks.pad(
        [torch.from_numpy(mask.edges[rows]) for mask, rows in zip(polygon_masks, not_horizontal, strict=True)],
        [torch.from_numpy(mask.parts[rows]) for mask, rows in zip(polygon_masks, not_horizontal, strict=True)],
    )


def boxes_from_polygon_masks(polygon_masks: Sequence[PolygonMask], size: tuple[int, int]) -> Float32[ndarray, "n 4"]:
    """Return the box (xyxy) of the visible part of each mask in an image of ``size`` (height, width).

    The box is zeros if no part is visible.
    """
    return np.array([_visible_box(mask, size) for mask in polygon_masks], np.float32).reshape(-1, 4)


def _visible_box(polygon_mask: PolygonMask, size: tuple[int, int]) -> Float[ndarray, "4"]:
    """Return the box around the edges inside the image and around the image corners that the object covers."""
    height, width = size
    limits = np.array([width, height])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    within = corners.clip(MARGIN, limits - MARGIN)
    covered = [corner for corner, near in zip(corners, within, strict=True) if _is_covered(near, polygon_mask)]
    points = np.concatenate([_ends_inside(polygon_mask, size), np.reshape(covered, (-1, 2))])
    if not len(points):
        return np.zeros(4)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _ends_inside(polygon_mask: PolygonMask, size: tuple[int, int]) -> Float32[ndarray, "k 2"]:
    """Return the end points of the clipped edges of a mask, except for edges along a border of the image.

    Clipping moves edges onto the border even where the object is only outside the image.
    """
    limits = np.array([size[1], size[0]])
    edges = clip_polygon_mask(polygon_mask, size).edges
    middles = (edges[:, :2] + edges[:, 2:]) / 2
    inside = ((middles > MARGIN) & (middles < limits - MARGIN)).all(axis=1)
    return edges[inside].reshape(-1, 2)


def _is_covered(point: Float64[ndarray, "2"], polygon_mask: PolygonMask) -> bool:
    """Return whether a point is inside the mask: a ray to the right crosses an odd number of edges of some part."""
    (x, y), (x1, y1, x2, y2) = point, polygon_mask.edges.T.astype(np.float64)
    crossing = (y1 <= y) != (y2 <= y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing &= x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return bool((np.bincount(polygon_mask.parts[crossing]) % 2).any())
