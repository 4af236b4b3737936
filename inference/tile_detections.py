"""Merging of the detections of overlapping tiles of an image.

An object that lies in the overlap of two tiles is detected twice, and one that crosses the border of a tile is cut
there. Both tiles see the same pixels in their overlap, so two detections are of one object if their boxes, clipped to
the overlap, agree. Of those that agree, the best that no border cuts is kept; if all are cut, they are united.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..ops import box_areas, pairwise_intersection, pairwise_iou, resample_masks
from ..structures import Detections


@dataclass(frozen=True, slots=True)
class TileDetections:
    """The detections of a tile, in pixels of the image."""

    frame: Float[Tensor, " 4"]
    """The area of the tile (xyxy)."""
    found: Detections
    is_cut: Bool[Tensor, " n"]
    """Which detections reach a border of the tile that is inside the image."""

    @classmethod
    def of(
        cls, found: Detections, tile: tuple[int, int, int, int], size: tuple[int, int], margin: float
    ) -> "TileDetections":
        """Move the detections of a tile (xyxy) into its image of ``size`` (height, width), onto the CPU.

        A detection is cut if it comes as near as ``margin`` pixels to an inner border.
        """
        frame = torch.tensor(tile, dtype=torch.float32)
        found = found.to("cpu").shift(tile[:2], size)
        limits = torch.tensor([0, 0, size[1], size[0]])
        is_cut = ((found.boxes - frame).abs() <= margin) & (frame != limits)
        return cls(frame, found, is_cut.any(dim=1))


class _Pairs(NamedTuple):
    """Pairs of detections of different tiles, by their indices among all detections."""

    first: Int64[Tensor, " p"]
    second: Int64[Tensor, " p"]
    values: Float[Tensor, " p"]

    @classmethod
    def none(cls) -> "_Pairs":
        """Return no pairs."""
        return cls.of(torch.zeros(0, 0), 0.0, (0, 0))

    @classmethod
    def of(cls, matrix: Float[Tensor, "n m"], threshold: float, offsets: tuple[int, int]) -> "_Pairs":
        """Return the pairs with positive values of at least ``threshold``, with ``offsets`` added to their indices."""
        rows, columns = ((matrix >= threshold) & (matrix > 0)).nonzero(as_tuple=True)
        return cls(rows + offsets[0], columns + offsets[1], matrix[rows, columns])


def merge_detections(
    views: Sequence[TileDetections], match_threshold: float = 0.5, cover_threshold: float = 0.5
) -> Detections:
    """Return the objects of an image, best first, from the detections of its tiles; see :class:`TileConfig`.

    There must be at least one tile.
    """
    found = Detections.concatenate([view.found for view in views])
    is_cut = torch.cat([view.is_cut for view in views])
    tiles = torch.repeat_interleave(torch.arange(len(views)), torch.tensor([len(view.found) for view in views]))
    same, covered = _compare_tiles(views, match_threshold, cover_threshold)
    groups = _group(same, tiles.tolist())
    merged = Detections.concatenate(
        [found[:0], *(_merge_group(found[rows], is_cut[rows]) for rows in map(torch.tensor, groups))]
    )
    group_of = torch.zeros(len(found), dtype=torch.int64)
    for number, rows in enumerate(groups):
        group_of[rows] = number
    part, other = group_of[covered.first], group_of[covered.second]
    merged = merged[~_find_parts(merged.boxes, _all_cut(is_cut, group_of, len(groups)), (part, other), cover_threshold)]
    return merged[merged.scores.argsort(descending=True, stable=True)]


def _all_cut(is_cut: Bool[Tensor, " n"], group_of: Int64[Tensor, " n"], count: int) -> Bool[Tensor, " g"]:
    """Return which groups consist of cut detections only."""
    return group_of[~is_cut].bincount(minlength=count) == 0


def _find_parts(
    boxes: Float[Tensor, "g 4"],
    is_cut: Bool[Tensor, " g"],
    pairs: tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]],
    cover_threshold: float,
) -> Bool[Tensor, " g"]:
    """Return which objects are parts of another: they are cut, and one that is not cut, or is larger, covers them.

    ``pairs`` are the objects to compare.
    """
    part, other = pairs
    areas = box_areas(boxes)
    common = pairwise_intersection(boxes[part][:, None], boxes[other][:, None])[:, 0, 0]
    is_covered = common >= cover_threshold * areas[part]
    wins = is_cut[part] & (~is_cut[other] | (areas[other] > areas[part])) & (part != other)
    is_part = torch.zeros_like(is_cut)
    is_part[part[is_covered & wins]] = True
    return is_part


def _compare_tiles(
    views: Sequence[TileDetections], match_threshold: float, cover_threshold: float
) -> tuple[_Pairs, _Pairs]:
    """Return the pairs of detections that are one object, with their IoU, and those of which the second covers the
    first, which is cut, with the covered fraction.

    Both have the same label and are in different tiles that overlap.
    """
    starts = [0]
    for view in views:
        starts.append(starts[-1] + len(view.found))
    same, covered = [_Pairs.none()], [_Pairs.none()]
    for one, two in _overlapping(views):
        first, second, offsets = views[one], views[two], (starts[one], starts[two])
        overlap = torch.cat(
            [torch.maximum(first.frame, second.frame)[:2], torch.minimum(first.frame, second.frame)[2:]]
        )
        equal = first.found.labels[:, None] == second.found.labels
        agreement = pairwise_iou(_clip(first.found.boxes, overlap), _clip(second.found.boxes, overlap))
        same.append(_Pairs.of(agreement * equal, match_threshold, offsets))
        common = pairwise_intersection(first.found.boxes, second.found.boxes) * equal
        covered.append(_Pairs.of(_covered(first, common), cover_threshold, offsets))
        covered.append(_Pairs.of(_covered(second, common.T), cover_threshold, (starts[two], starts[one])))
    same, covered = (_Pairs(*map(torch.cat, zip(*pairs, strict=True))) for pairs in (same, covered))
    return same, covered


def _overlapping(views: Sequence[TileDetections]) -> Iterator[tuple[int, int]]:
    """Yield the indices of every two tiles that overlap and both have detections."""
    filled = [index for index, view in enumerate(views) if len(view.found)]
    frames = torch.stack([view.frame for view in views])
    for position, one in enumerate(filled):
        others = torch.tensor(filled[position + 1 :], dtype=torch.int64)
        areas = pairwise_intersection(frames[one : one + 1], frames[others])[0]
        yield from ((one, two) for two in others[areas > 0].tolist())


def _clip(boxes: Float[Tensor, "n 4"], frame: Float[Tensor, " 4"]) -> Float[Tensor, "n 4"]:
    """Return the part of each box inside a frame; it has no area if there is none."""
    return boxes.clamp(frame[:2].repeat(2), frame[2:].repeat(2))


def _covered(view: TileDetections, common: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Return the fraction of each cut detection that others cover, given the common areas; 0 for the others."""
    return common / box_areas(view.found.boxes).clamp(min=1e-6)[:, None] * view.is_cut[:, None]


def _group(pairs: _Pairs, tiles: Sequence[int]) -> list[list[int]]:
    """Return the detections of each object, best agreement first; an object has one detection per tile at most."""
    groups: list[list[int]] = [[index] for index in range(len(tiles))]
    of = list(groups)
    order = pairs.values.argsort(descending=True, stable=True)
    for one, two in zip(pairs.first[order].tolist(), pairs.second[order].tolist(), strict=True):
        if {tiles[index] for index in of[one]}.isdisjoint(tiles[index] for index in of[two]):
            of[one] += of[two]
            for index in of[two]:
                of[index] = of[one]
    return [group for index, group in enumerate(of) if group is groups[index]]


def _merge_group(found: Detections, is_cut: Bool[Tensor, " n"]) -> Detections:
    """Return the best detection that is not cut; if all are, the best one with the box and the mask of them all."""
    if len(found) == 1:
        return found
    if not is_cut.all():
        found = found[~is_cut]
        return found[int(found.scores.argmax())]
    best = found[int(found.scores.argmax())]
    box = torch.cat([found.boxes[:, :2].amin(dim=0), found.boxes[:, 2:].amax(dim=0)])[None]
    masks = None
    if found.masks is not None:
        grids = resample_masks(found.masks.grids, found.boxes, box[0]).amax(dim=0, keepdim=True)
        masks = replace(found.masks, grids=grids)
    return replace(best, boxes=box, masks=masks)
