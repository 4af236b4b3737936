"""The field type of values that do not depend on the geometry of the image, such as labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy import ndarray
from numpy.typing import DTypeLike
from torch import Tensor

from ...structures import require_one_per_box
from .base import Carried, ObjectField, Window

Values = Shaped[ndarray, "_ ..."]


class ConstantField(ObjectField[Values]):
    """The field type of arrays with a row per object that no transform changes: labels, track ids, attributes.

    ``what`` is the word for one value in error messages (``"track"``). ``dtype`` is the dtype of the tensor; None keeps
    the dtype of the array.
    """

    def __init__(self, what: str, dtype: DTypeLike | None = None) -> None:
        self.what, self.dtype = what, dtype

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        require_one_per_box(self.what, value, count)

    def select(self, value: Values, rows: Int64[ndarray, " k"]) -> Values:
        return value[rows]

    def concatenate(self, values: Sequence[Values]) -> Values:
        return np.concatenate(values)

    def resize(self, value: Values, before: tuple[int, int], after: tuple[int, int]) -> Values:
        return value

    def crop(self, value: Values, window: Window) -> Values:
        return value

    def place(self, value: Values, left: int, top: int, size: tuple[int, int]) -> Values:
        return value

    def carry(self, value: Values) -> Carried:
        return Carried()

    def restore(self, value: Values, carried: Carried, size: tuple[int, int], mirrored: bool) -> Values:
        return value

    def to_tensor(self, value: Values) -> Tensor:
        return torch.from_numpy(np.array(value, self.dtype))
