"""The field type of keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ...structures import HIDDEN, UNLABELED, VISIBLE, require_one_per_box
from .base import Carried, Coverable, ObjectField, Window

Points = Float32[ndarray, "n k 2"]


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """The keypoints of the objects of one image."""

    values: Float32[ndarray, "n k 3"]
    """x, y and visibility, see :mod:`vertebra.structures.keypoints`."""
    flip_order: tuple[int, ...]
    """The order of the keypoints after a horizontal flip: for each one, the index of its original."""

    def __len__(self) -> int:
        return len(self.values)


class KeypointField(ObjectField[Keypoints], Coverable[Keypoints]):
    """The field type of keypoints; a keypoint that leaves the image becomes unlabeled, as in detectron2.

    A keypoint on the border of the image counts as inside. A horizontal flip swaps left and right keypoints.
    """

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        require_one_per_box("skeleton", value, count)

    def select(self, value: Keypoints, rows: Int64[ndarray, " k"]) -> Keypoints:
        return replace(value, values=value.values[rows])

    def concatenate(self, values: Sequence[Keypoints]) -> Keypoints:
        return replace(values[0], values=np.concatenate([value.values for value in values]))

    def resize(self, value: Keypoints, before: tuple[int, int], after: tuple[int, int]) -> Keypoints:
        factors = np.array(after[::-1], np.float32) / np.array(before[::-1], np.float32)
        return _with_coordinates(value, value.values[..., :2] * factors)

    def crop(self, value: Keypoints, window: Window) -> Keypoints:
        return _with_coordinates(
            value, value.values[..., :2] - np.array([window.left, window.top], np.float32), window.size
        )

    def place(self, value: Keypoints, left: int, top: int, size: tuple[int, int]) -> Keypoints:
        return _with_coordinates(value, value.values[..., :2] + np.array([left, top], np.float32))

    def cover(self, value: Keypoints, covered: UInt8[ndarray, "h w"]) -> Keypoints:
        """Mark visible keypoints at covered pixels as hidden; they remain labeled, as if occluded by another object.

        detectron2 and torchvision train on hidden keypoints as on visible ones; neither has copy-paste for keypoints.
        """
        height, width = covered.shape
        columns = value.values[..., 0].astype(np.int64).clip(0, width - 1)
        rows = value.values[..., 1].astype(np.int64).clip(0, height - 1)
        values = value.values.copy()
        values[(values[..., 2] == VISIBLE) & (covered[rows, columns] > 0), 2] = HIDDEN
        return replace(value, values=values)

    def carry(self, value: Keypoints) -> Carried:
        return Carried(points=value.values[..., :2].reshape(-1, 2))

    def restore(self, value: Keypoints, carried: Carried, size: tuple[int, int], mirrored: bool) -> Keypoints:
        assert carried.points is not None, "they were carried"
        moved = _with_coordinates(
            value, carried.points.reshape(*value.values.shape[:2], 2).astype(np.float32, copy=False), size
        )
        return replace(moved, values=moved.values[:, list(value.flip_order)]) if mirrored else moved

    def to_tensor(self, value: Keypoints) -> Tensor:
        return torch.from_numpy(value.values.copy())


def _with_coordinates(value: Keypoints, points: Points, size: tuple[int, int] | None = None) -> Keypoints:
    """Return the keypoints at new coordinates; those outside of ``size``, if given, become unlabeled (zeros)."""
    labeled = value.values[..., 2] > UNLABELED
    if size is not None:
        labeled &= ((points >= 0) & (points <= np.array(size[::-1], np.float32))).all(axis=2)
    values = np.concatenate([points, value.values[..., 2:]], axis=2)
    return replace(value, values=np.where(labeled[..., None], values, np.float32(0)))
