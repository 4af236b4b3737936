"""The objects of a batch in tensors of one shape, so that all images are assigned and sampled together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..structures import Images, Instances, PolygonMasks, copy_all


class PaddedTargets(NamedTuple):
    """The objects of each image, padded to the same number, which is at least one.

    Masks take much memory, so their number is not padded: those of all images are concatenated, and ``rows`` has the
    row of each object's mask.
    """

    boxes: Float[Tensor, "b m 4"]
    labels: Int64[Tensor, "b m"]
    valid: Bool[Tensor, "b m"]
    """False for padding, whose boxes and labels are 0."""
    sizes: Int64[Tensor, "b 2"]
    """The (height, width) of each image without padding."""
    ignored: Float[Tensor, "b i 4"]
    """Ignore regions, padded with empty boxes; there may be none."""
    rows: Int64[Tensor, "b m"]
    """The row of each object in ``masks`` and ``polygon_masks``; 0 for padding."""
    masks: Bool[Tensor, "n h w"] | None = None
    """The masks of all images at their padded size; a single empty mask if there are no objects. Each mask continues
    beyond the bottom and right border of its image by one pixel, so that interpolation at the border is the same as
    without padding."""
    polygon_masks: PolygonMasks | None = None
    keypoints: Float[Tensor, "b m k 3"] | None = None
    instances: Sequence[Instances] = ()
    """The objects of each image without padding, which also have the fields that are not listed here."""

    def of_images(self, first: int, stop: int) -> "PaddedTargets":
        """Return the targets of a range of images."""
        images = slice(first, stop)
        return self._replace(
            boxes=self.boxes[images],
            labels=self.labels[images],
            valid=self.valid[images],
            sizes=self.sizes[images],
            ignored=self.ignored[images],
            rows=self.rows[images],
            keypoints=None if self.keypoints is None else self.keypoints[images],
            instances=self.instances[images],
        )


def pad_targets(targets: Sequence[Instances], images: Images, count: int = 1) -> PaddedTargets:
    """Pad the objects of each image to the largest number among the images, but at least to ``count``.

    An optional field that any image lacks becomes None.
    """
    boxes, labels = [target.boxes for target in targets], [target.labels for target in targets]
    lengths = [len(target) for target in targets]
    count = max(count, *lengths)
    position = torch.arange(count)
    valid = position < torch.tensor(lengths)[:, None]
    first = torch.tensor([0, *lengths[:-1]]).cumsum(0)[:, None]
    rows = torch.where(valid, first + position, 0)
    regions = [boxes[0][:0] if target.ignored is None else target.ignored for target in targets]
    return PaddedTargets(
        boxes=_pad(boxes, count),
        labels=_pad(labels, count),
        valid=valid.to(boxes[0].device, non_blocking=True),
        sizes=images.sizes,
        ignored=_pad(regions, max(map(len, regions))),
        rows=rows.to(boxes[0].device, non_blocking=True),
        masks=_stack_masks(targets, images.padded_size),
        polygon_masks=_join_polygons(targets),
        keypoints=_pad_keypoints(targets, count),
        instances=targets,
    )


def _pad(parts: Sequence[Shaped[Tensor, "_ *d"]], count: int) -> Shaped[Tensor, "b {count} *d"]:
    padded = parts[0].new_zeros(len(parts), count, *parts[0].shape[1:])
    copy_all([row[: len(part)] for row, part in zip(padded, parts, strict=True)], parts)
    return padded


def _pad_keypoints(targets: Sequence[Instances], count: int) -> Float[Tensor, "b {count} k 3"] | None:
    keypoints = [target.keypoints for target in targets if target.keypoints is not None]
    return _pad(keypoints, count) if len(keypoints) == len(targets) else None


def _stack_masks(targets: Sequence[Instances], padded_size: tuple[int, int]) -> Bool[Tensor, "n h w"] | None:
    """Concatenate the masks of all images, with the last row and column of each image repeated once in the padding."""
    masks = [target.masks for target in targets if target.masks is not None]
    if len(masks) < len(targets):
        return None
    lengths = [len(rows) for rows in masks]
    stacked = masks[0].new_zeros(max(1, sum(lengths)), *padded_size)
    copies = []
    for canvas, mask in zip(stacked[: sum(lengths)].split(lengths), masks, strict=True):
        height, width = mask.shape[1:]
        rows, columns = canvas[:, height : height + 1], canvas[:, :, width : width + 1]  # empty without padding
        copies += [
            (canvas[:, :height, :width], mask),
            (rows[:, :, :width], mask[:, -1:][:, : rows.shape[1]]),
            (columns[:, :height], mask[:, :, -1:][:, :, : columns.shape[2]]),
            (rows[:, :, width : width + 1], mask[:, -1:, -1:][:, : rows.shape[1], : columns.shape[2]]),
        ]
    copy_all(*zip(*copies, strict=True))
    return stacked


def _join_polygons(targets: Sequence[Instances]) -> PolygonMasks | None:
    masks = [target.polygon_masks for target in targets if target.polygon_masks is not None]
    return PolygonMasks.join(masks) if len(masks) == len(targets) else None
