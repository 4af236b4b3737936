"""The outlines of objects: masks that a resize takes nothing from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMasks:
    """Edges of the objects of one image, in its frame; those with fewer are padded with edges of no length.

    An object is the union of its parts, a part is where a ray crosses its edges an odd number of times: COCO's rule for
    polygons. The order and the direction of edges mean nothing. See :func:`vertebra.ops.rasterize_polygon_masks`.
    """

    edges: Float32[Tensor, "n e 4"]  # x1, y1, x2, y2
    parts: Int64[Tensor, "n e"]  # which of its object's parts an edge is of
    most_parts: int
    """Of an object; a number of the host's, since memory is laid out by it."""

    @classmethod
    def pad(cls, edges: Sequence[Float32[Tensor, "_ 4"]], parts: Sequence[Int64[Tensor, " _"]]) -> "PolygonMasks":
        """Of each object's edges and their parts, counted from 0."""
        longest = max(map(len, parts), default=0)
        padded = cls(
            torch.zeros(len(edges), longest, 4),
            torch.zeros(len(parts), longest, dtype=torch.int64),
            most_parts=1 + max((int(own.max()) for own in parts if len(own)), default=0),
        )
        for row, (own_edges, own_parts) in enumerate(zip(edges, parts, strict=True)):
            padded.edges[row, : len(own_edges)] = own_edges
            padded.parts[row, : len(own_parts)] = own_parts
        return padded

    def __len__(self) -> int:
        return len(self.edges)

    def map(self, change: Callable[[Tensor], Tensor]) -> "PolygonMasks":
        """The same with changed tensors: on another device, in other memory."""
        return PolygonMasks(change(self.edges), change(self.parts), self.most_parts)
