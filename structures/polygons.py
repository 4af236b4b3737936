"""Masks as polygons, which can be resized without loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from .copies import copy_all


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMasks:
    """The masks of one image's objects as polygon edges, in pixels of the image.

    Every object has the same number of edges, padded with edges of length 0. An object is the union of its parts. A
    point is inside a part if a ray from it crosses the part's edges an odd number of times (COCO's rule for polygons);
    the order and direction of edges do not matter. :func:`vertebra.ops.rasterize_polygon_masks` computes bitmaps.
    """

    edges: Float32[Tensor, "n e 4"]
    """(x1, y1, x2, y2) of each edge."""
    parts: Int64[Tensor, "n e"]
    """The part that each edge belongs to, counted from 0 within its object."""
    most_parts: int
    """The largest number of parts of an object; stored, so that memory can be allocated without reading a tensor."""

    @classmethod
    def pad(cls, edges: Sequence[Float32[Tensor, "_ 4"]], parts: Sequence[Int64[Tensor, " _"]]) -> "PolygonMasks":
        """Pad and stack the edges of each object, and the part, counted from 0, that each edge belongs to."""
        longest = max(map(len, parts), default=0)
        padded = cls(
            torch.zeros(len(edges), longest, 4),
            torch.zeros(len(parts), longest, dtype=torch.int64),
            most_parts=1 + max((int(numbers.max()) for numbers in parts if len(numbers)), default=0),
        )
        for row, (object_edges, object_parts) in enumerate(zip(edges, parts, strict=True)):
            padded.edges[row, : len(object_edges)] = object_edges
            padded.parts[row, : len(object_parts)] = object_parts
        return padded

    @classmethod
    def join(cls, images: Sequence["PolygonMasks"]) -> "PolygonMasks":
        """Concatenate the objects of several images; if there are none, the result has one object without edges."""
        lengths, longest = [len(masks) for masks in images], max(masks.edges.shape[1] for masks in images)
        first = images[0]
        joined = cls(
            first.edges.new_zeros(max(1, sum(lengths)), longest, 4),
            first.parts.new_zeros(max(1, sum(lengths)), longest),
            max(masks.most_parts for masks in images),
        )
        for name in ("edges", "parts"):
            rows = getattr(joined, name)[: sum(lengths)].split(lengths)
            parts = [getattr(masks, name) for masks in images]
            copy_all([row[:, : part.shape[1]] for row, part in zip(rows, parts, strict=True)], parts)
        return joined

    def __len__(self) -> int:
        return len(self.edges)

    def map(self, change: Callable[[Tensor], Tensor]) -> "PolygonMasks":
        """Return a copy with ``change`` applied to every tensor, such as a copy to a device or to pinned memory."""
        return PolygonMasks(change(self.edges), change(self.parts), self.most_parts)
