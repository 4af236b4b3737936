"""Polygon masks on their way from a file to a target: the edges of polygons, or of the pixels of a bitmap."""

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
    """The edges of one object, in continuous pixels, and the part of the object that each of them belongs to.

    :class:`PolygonMasks` says what edges and parts mean.
    """

    edges: Float32[ndarray, "e 4"]  # x1, y1, x2, y2
    parts: Int64[ndarray, " e"]

    @classmethod
    def of_polygons(cls, polygons: Sequence[Float32[ndarray, "_ 2"]]) -> "PolygonMask":
        """Make a mask with a part for each polygon, whose last point is joined to its first."""
        edges = [np.concatenate([points, np.roll(points, -1, axis=0)], axis=1) for points in polygons]
        return cls(np.concatenate(edges), np.repeat(np.arange(len(edges)), [len(part) for part in edges]))

    @classmethod
    def of_bitmap(cls, mask: UInt8[ndarray, "h w"]) -> "PolygonMask":
        """Make a mask of one part that runs along the borders of a bitmap's pixels."""
        edges = np.concatenate([_upright_borders(mask), _upright_borders(mask.T)[:, [1, 0, 3, 2]]])
        return cls(edges.astype(np.float32), np.zeros(len(edges), np.int64))

    def with_edges(self, edges: Float32[ndarray, "e 4"]) -> "PolygonMask":
        """Return the mask with its edges moved."""
        return PolygonMask(edges, self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _upright_borders(mask: UInt8[ndarray, "h w"]) -> Int64[ndarray, "k 4"]:
    """Return the upright lines between pixels inside and outside, as long as they go."""
    inside = np.pad(mask > 0, ((0, 0), (1, 1)))
    changes = np.diff((inside[:, 1:] != inside[:, :-1]).astype(np.int8), axis=0, prepend=0, append=0)
    # Down one column after the other, so that starts and ends come in pairs.
    return np.concatenate([np.argwhere(changes.T == 1), np.argwhere(changes.T == -1)], axis=1)


def polygon_vertices(polygon_masks: Iterable[PolygonMask]) -> Float32[ndarray, "k 2"]:
    """Return both ends of every edge."""
    return np.concatenate([np.zeros((0, 4), np.float32), *(mask.edges for mask in polygon_masks)]).reshape(-1, 2)


def with_vertices(polygon_masks: Sequence[PolygonMask], points: Float[ndarray, "k 2"]) -> tuple[PolygonMask, ...]:
    """Return the masks with the ends of their edges, as :func:`polygon_vertices` lists them, at these points."""
    edges = points.astype(np.float32).reshape(-1, 4)
    ends = itertools.accumulate(map(len, polygon_masks))
    return tuple(mask.with_edges(edges[end - len(mask) : end]) for mask, end in zip(polygon_masks, ends, strict=True))


def clip_polygon_mask(polygon_mask: PolygonMask, size: tuple[int, int]) -> PolygonMask:
    """Return the part of a polygon mask that lies in an image of this (height, width).

    Every edge is broken where it crosses the line through a border of the image, and what lies outside is moved to the
    nearest point inside. So an even number of edges is added along a border where the object is outside, and a ray
    still crosses them an odd number of times just where it did.
    """
    limits = np.array([size[1], size[0]], np.float64)
    ends = polygon_mask.edges.reshape(-1, 2)
    if (ends <= 0).all(axis=0).any() or (ends >= limits).all(axis=0).any():  # all of it beyond one border
        return PolygonMask(polygon_mask.edges[:0], polygon_mask.parts[:0])
    start, step = np.split(polygon_mask.edges.astype(np.float64)[:, None], [2], axis=2)
    step = step - start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.concatenate([-start / step, (limits - start) / step], axis=2)[:, 0]
    fractions = np.sort(np.nan_to_num(crossings, posinf=1, neginf=0).clip(0, 1), axis=1)
    fractions = np.pad(fractions, ((0, 0), (1, 1)), constant_values=(0, 1))[:, :, None]
    points = (start + fractions * step).clip(0, limits).astype(np.float32)
    edges = np.concatenate([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 4)
    kept = (edges[:, :2] != edges[:, 2:]).any(axis=1)
    return PolygonMask(edges[kept], np.repeat(polygon_mask.parts, 5)[kept])


def pad_polygon_masks(polygon_masks: Sequence[PolygonMask]) -> PolygonMasks:
    """Return the masks as a target holds them, without level edges: a ray along a row crosses none."""
    kept = [mask.edges[:, 1] != mask.edges[:, 3] for mask in polygon_masks]
    return PolygonMasks.pad(
        [torch.from_numpy(mask.edges[rows]) for mask, rows in zip(polygon_masks, kept, strict=True)],
        [torch.from_numpy(mask.parts[rows]) for mask, rows in zip(polygon_masks, kept, strict=True)],
    )


def boxes_from_polygon_masks(polygon_masks: Sequence[PolygonMask], size: tuple[int, int]) -> Float32[ndarray, "n 4"]:
    """Return the box of the part of each mask in an image of this (height, width); zeros where that is nothing."""
    return np.array([_visible_box(mask, size) for mask in polygon_masks], np.float32).reshape(-1, 4)


def _visible_box(polygon_mask: PolygonMask, size: tuple[int, int]) -> Float[ndarray, "4"]:
    """Return the box around the edges inside the image and the image's corners that the object covers."""
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
    """Return the ends of the clipped edges that do not run along a border of the image of this (height, width).

    Along a border the object may lie on the other side.
    """
    limits = np.array([size[1], size[0]])
    edges = clip_polygon_mask(polygon_mask, size).edges
    middles = (edges[:, :2] + edges[:, 2:]) / 2
    inside = ((middles > MARGIN) & (middles < limits - MARGIN)).all(axis=1)
    return edges[inside].reshape(-1, 2)


def _is_covered(point: Float64[ndarray, "2"], polygon_mask: PolygonMask) -> bool:
    """Return whether a ray to the right crosses the edges of a part an odd number of times."""
    (x, y), (x1, y1, x2, y2) = point, polygon_mask.edges.T.astype(np.float64)
    crossing = (y1 <= y) != (y2 <= y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing &= x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return bool((np.bincount(polygon_mask.parts[crossing]) % 2).any())
