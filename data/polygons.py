"""Outlines on their way from a file to a target: the edges of polygons, or of the pixels of a bitmap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from numpy import ndarray

from ..structures import PolygonMasks


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMask:
    """The edges of one object, in continuous pixels, and of which of its parts each is; see :class:`PolygonMasks`."""

    edges: Float32[ndarray, "e 4"]  # x1, y1, x2, y2
    parts: Int64[ndarray, " e"]

    @classmethod
    def of_polygons(cls, polygons: Sequence[Float32[ndarray, "_ 2"]]) -> "PolygonMask":
        """Every polygon is a part; the last point of each is joined to its first."""
        edges = [np.concatenate([points, np.roll(points, -1, axis=0)], axis=1) for points in polygons]
        return cls(np.concatenate(edges), np.repeat(np.arange(len(edges)), [len(own) for own in edges]))

    @classmethod
    def of_bitmap(cls, mask: UInt8[ndarray, "h w"]) -> "PolygonMask":
        """Along the borders of its pixels; one part."""
        edges = np.concatenate([_upright_borders(mask), _upright_borders(mask.T)[:, [1, 0, 3, 2]]])
        return cls(edges.astype(np.float32), np.zeros(len(edges), np.int64))

    def __len__(self) -> int:
        return len(self.parts)


def _upright_borders(mask: UInt8[ndarray, "h w"]) -> Int64[ndarray, "k 4"]:
    """Upright lines between pixels inside and outside, each as long as it goes."""
    inside = np.pad(mask > 0, ((0, 0), (1, 1)))
    changes = np.diff((inside[:, 1:] != inside[:, :-1]).astype(np.int8), axis=0, prepend=0, append=0)
    # Down one column after the other, so that starts and ends come in pairs.
    return np.concatenate([np.argwhere(changes.T == 1), np.argwhere(changes.T == -1)], axis=1)


def polygon_vertices(polygon_masks: Iterable[PolygonMask]) -> Float32[ndarray, "k 2"]:
    """Both ends of every edge, as albumentations has its keypoints: whole numbers are the middles of pixels."""
    return np.concatenate([np.zeros((0, 4), np.float32), *(own.edges for own in polygon_masks)]).reshape(-1, 2) - 0.5


def with_vertices(polygon_masks: Sequence[PolygonMask], points: Float[ndarray, "k 2"]) -> list[PolygonMask]:
    """The outlines with their ends where albumentations has put the points."""
    edges = (points.astype(np.float32) + 0.5).reshape(-1, 4)
    starts = np.cumsum([0, *map(len, polygon_masks)])
    return [replace(own, edges=edges[first:][: len(own)]) for own, first in zip(polygon_masks, starts, strict=False)]


def clip_polygon_mask(polygon_mask: PolygonMask, size: tuple[int, int]) -> PolygonMask:
    """What of an outline lies in an image of this (height, width).

    Every edge is broken where it crosses a line that a border of the image is on, and what lies outside is moved to the
    nearest place inside. So an even number of edges more runs along a border where the object is outside, and a ray
    crosses them an odd number of times just where it did.
    """
    limits = np.array([size[1], size[0]], np.float64)
    start, step = np.split(polygon_mask.edges.astype(np.float64)[:, None], [2], axis=2)
    step = step - start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.concatenate([-start / step, (limits - start) / step], axis=2)[:, 0]
    shares = np.sort(np.nan_to_num(crossings, posinf=1, neginf=0).clip(0, 1), axis=1)
    shares = np.pad(shares, ((0, 0), (1, 1)), constant_values=(0, 1))[:, :, None]
    points = (start + shares * step).clip(0, limits).astype(np.float32)
    edges = np.concatenate([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 4)
    kept = (edges[:, :2] != edges[:, 2:]).any(axis=1)
    return PolygonMask(edges[kept], np.repeat(polygon_mask.parts, 5)[kept])


def pad_polygon_masks(polygon_masks: Sequence[PolygonMask]) -> PolygonMasks:
    """As a target holds them. Level edges are left out: a ray along a row crosses none."""
    upright = [own.edges[:, 1] != own.edges[:, 3] for own in polygon_masks]
    return PolygonMasks.pad(
        [torch.from_numpy(own.edges[kept]) for own, kept in zip(polygon_masks, upright, strict=True)],
        [torch.from_numpy(own.parts[kept]) for own, kept in zip(polygon_masks, upright, strict=True)],
    )
