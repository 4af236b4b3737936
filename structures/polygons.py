"""Masks as polygons, which lose nothing when they are resized."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMasks:
    """The polygon masks of one image's objects, in its frame, as edges padded to the longest with edges of length 0.

    An object is the union of its parts; a point is in a part where a ray from it crosses the part's edges an odd number
    of times, which is COCO's rule for polygons. The order and the direction of edges mean nothing.
    :func:`vertebra.ops.rasterize_polygon_masks` turns them into bitmaps.
    """

    edges: Float32[Tensor, "n e 4"]  # x1, y1, x2, y2
    parts: Int64[Tensor, "n e"]  # the number of the part of its object that an edge belongs to
    most_parts: int
    """The most parts that an object has; known without reading a tensor, since memory is laid out by it."""

    @classmethod
    def pad(cls, edges: Sequence[Float32[Tensor, "_ 4"]], parts: Sequence[Int64[Tensor, " _"]]) -> "PolygonMasks":
        """Return the masks of objects with these edges, and the part, counted from 0, of each edge."""
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

    def __len__(self) -> int:
        return len(self.edges)

    def map(self, change: Callable[[Tensor], Tensor]) -> "PolygonMasks":
        """Return the masks with every tensor changed: copied to a device, or to page-locked memory."""
        return PolygonMasks(change(self.edges), change(self.parts), self.most_parts)
