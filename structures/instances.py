"""The ground-truth objects of one image, as the training target of a head."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .field_table import FieldTable, require_one_per_box
from .polygons import PolygonMasks

TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image: some are rounded, some include their last pixel."""

FieldCheck = Callable[[Any, int, tuple[int, int] | None], None]
"""``check(value, count, size)`` raises ValueError if the value of a field does not fit ``count`` objects or an image of
``size`` (height, width); ``size`` is None if it is unknown."""


@runtime_checkable
class TensorGroup(Protocol):
    """The value of a field that consists of several tensors, such as :class:`PolygonMasks`."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "TensorGroup":
        """Return a copy with ``change`` applied to every tensor, such as a copy to a device or to pinned memory."""
        ...


class Instances(FieldTable):
    """The ground-truth objects of one image, in pixels of the resized image.

    The constructor raises ValueError if a field has not one value per object and, for tensors on the CPU, if a box is
    not finite or not ordered (x1 < x2, y1 < y2) or a label is negative. No value is read back from a GPU. Whether boxes
    lie inside the image is checked where its size is known: by ``Sample`` in the data pipeline and by heads' losses.

    To add a field, declare it with ``vertebra.data.declare_object_field`` and pass it by name:
    ``Instances(boxes, labels, points=points)``.
    """

    __slots__ = ("max_label",)

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n h w"] | None
    ignored: Float[Tensor, "m 4"] | None
    """Ignore regions, neither object nor background: COCO's crowds, VOC's difficult objects."""
    polygon_masks: PolygonMasks | None
    """The masks as polygons, for heads that need sub-pixel precision."""
    keypoints: Float[Tensor, "n k 3"] | None
    """(x, y, visibility) of each keypoint of each object, see :mod:`vertebra.structures.keypoints`."""
    max_label: int | None
    """The largest label, -1 without objects; None if the labels were already on a GPU at construction."""

    def __init__(
        self,
        boxes: Float[Tensor, "n 4"],
        labels: Int64[Tensor, " n"],
        masks: Bool[Tensor, "n h w"] | None = None,
        ignored: Float[Tensor, "m 4"] | None = None,
        polygon_masks: PolygonMasks | None = None,
        **fields: Tensor | TensorGroup | None,
    ) -> None:
        given = {"boxes": boxes, "labels": labels, "masks": masks, "ignored": ignored, "polygon_masks": polygon_masks}
        self._set_fields(given | fields)
        self._check(None)
        object.__setattr__(self, "max_label", _max_label(labels))

    @classmethod
    def declared_fields(cls) -> Iterable[str]:
        return INSTANCE_FIELDS

    def __len__(self) -> int:
        return len(self.boxes)

    def require_size(self, size: tuple[int, int]) -> None:
        """Raise ValueError if boxes lie outside an image of this (height, width) or masks have another size."""
        self._check(size)

    def to(self, device: torch.device | str) -> "Instances":
        """Return the instances with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Instances":
        """Return a copy of the instances in pinned memory, from which copies to a GPU can be asynchronous."""
        return self._map(Tensor.pin_memory)

    def _check(self, size: tuple[int, int] | None) -> None:
        count = self.boxes.shape[0] if self.boxes.ndim else 0
        for name, value in self.fields.items():
            INSTANCE_FIELDS[name](value, count, size)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Instances":
        changed = {
            name: change(value) if isinstance(value, Tensor) else value.map(change)
            for name, value in self.fields.items()
        }
        return self.replace_unchecked(**changed)


def declare_instance_field(name: str, check: FieldCheck) -> None:
    """Add a field to :class:`Instances`; ``check`` validates its values, see ``FieldCheck``.

    For a field that a data pipeline fills, call ``vertebra.data.declare_object_field``, which calls this function.
    Raises ValueError if the name is taken or is no valid attribute name.
    """
    if name in INSTANCE_FIELDS:
        raise ValueError(f"the field {name!r} is declared already; choose another name")
    if not name.isidentifier() or name.startswith("_") or hasattr(Instances, name):
        raise ValueError(f"{name!r} cannot be read as an attribute of Instances; choose another name")
    INSTANCE_FIELDS[name] = check


def _check_boxes(boxes: Tensor, count: int, size: tuple[int, int] | None) -> None:
    _check_regions("boxes", boxes, size)


def _check_ignored(regions: Tensor, count: int, size: tuple[int, int] | None) -> None:
    _check_regions("ignored", regions, None)  # an ignore region may be larger than its image


def _check_regions(name: str, boxes: Tensor, size: tuple[int, int] | None) -> None:
    """Raise ValueError for a wrong shape and, on the CPU, for the first row that is invalid or outside the image."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have shape (n, 4), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{name} must be floating-point pixels, got {boxes.dtype}; convert them with .float()")
    if boxes.device.type != "cpu" or not len(boxes):  # reading a value back would wait for the GPU
        return
    # This runs for every training image, so the invalid row is searched for only if there is one.
    least, (right, bottom) = boxes.min().item(), boxes[:, 2:].amax(dim=0).tolist()
    ordered = boxes[:, :2] < boxes[:, 2:]  # false for NaN
    if not ordered.all() or math.inf in (-least, right, bottom):
        rule = "a box is (x1, y1, x2, y2), finite, with x1 < x2 and y1 < y2; correct it, or drop it if it is empty"
        raise _row_error(name, boxes, ordered.all(dim=1) & boxes.isfinite().all(dim=1), rule)
    if size is not None and (least < -TOLERANCE or right > size[1] + TOLERANCE or bottom > size[0] + TOLERANCE):
        inside = (boxes >= -TOLERANCE) & (boxes <= boxes.new_tensor([size[1], size[0]] * 2) + TOLERANCE)
        rule = f"it must lie in its image of (height, width) {size}; clip it, or drop it if it is outside"
        raise _row_error(name, boxes, inside.all(dim=1), rule)


def _row_error(name: str, boxes: Tensor, valid: Bool[Tensor, " n"], rule: str) -> ValueError:
    """Return an error with the index and the values of the first row that is not valid."""
    row = int(valid.logical_not().nonzero()[0])
    values = ", ".join(f"{value:g}" for value in boxes[row].tolist())
    return ValueError(f"{name}[{row}] is ({values}): {rule}")


def _check_labels(labels: Tensor, count: int, size: tuple[int, int] | None) -> None:
    require_one_per_box("label", labels, count)
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape (n,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.device.type == "cpu" and len(labels) and int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0])
        raise ValueError(f"labels[{row}] is {int(labels[row])}; labels start at 0, and the background has no label")


def _max_label(labels: Int64[Tensor, " n"]) -> int | None:
    if labels.device.type != "cpu":
        return None
    return int(labels.max()) if len(labels) else -1


def _check_masks(masks: Tensor, count: int, size: tuple[int, int] | None) -> None:
    require_one_per_box("mask", masks, count)
    if masks.dtype != torch.bool:
        raise ValueError(f"masks must be torch.bool, got {masks.dtype}; convert them with masks > 0")
    if masks.ndim != 3:
        raise ValueError(f"masks must have shape (n, height, width), got {tuple(masks.shape)}")
    if size is not None and tuple(masks.shape[1:]) != tuple(size):
        raise ValueError(
            f"the image has the (height, width) {tuple(size)}, its masks {tuple(masks.shape[1:])}: "
            "a mask needs a value for every pixel"
        )


def _check_polygon_masks(polygon_masks: PolygonMasks, count: int, size: tuple[int, int] | None) -> None:
    require_one_per_box("polygon mask", polygon_masks, count)


def _check_keypoints(keypoints: Tensor, count: int, size: tuple[int, int] | None) -> None:
    if keypoints.ndim != 3 or keypoints.shape[0] != count or keypoints.shape[2] != 3:
        raise ValueError(
            f"keypoints must have shape ({count}, number of keypoints, 3) for {count} boxes, got "
            f"{tuple(keypoints.shape)}"
        )
    if keypoints.device.type != "cpu" or not keypoints.numel():
        return
    valid = keypoints.isfinite().all(dim=2) & torch.isin(keypoints[..., 2], torch.arange(3.0).to(keypoints))
    if not valid.all():
        row, index = valid.logical_not().nonzero()[0].tolist()
        values = ", ".join(f"{value:g}" for value in keypoints[row, index].tolist())
        raise ValueError(f"keypoints[{row}, {index}] is ({values}): it must be finite, with a visibility of 0, 1 or 2")


INSTANCE_FIELDS: dict[str, FieldCheck] = {
    "boxes": _check_boxes,
    "labels": _check_labels,
    "masks": _check_masks,
    "ignored": _check_ignored,
    "polygon_masks": _check_polygon_masks,
    "keypoints": _check_keypoints,
}
"""The declared fields of :class:`Instances`, each with the check of its value."""
