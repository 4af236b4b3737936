"""The rows of a head's tensors that belong to each class, so that weights can be transferred between class lists."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from .base import Head


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How the first dimension of a predictor's weight and bias is divided among the classes, in their order.

    A module declares this in its attribute ``class_rows``, by the name of the submodule: ``{"logits": ClassRows()}``.
    """

    per_class: int = 1
    """The number of rows per class."""
    background: Literal["first", "last"] | None = None
    """The position of the background's rows; None if the background has no rows."""
    repeats: int = 1
    """How often the rows of all classes are repeated: once per anchor of a cell."""
    names: tuple[str, ...] | None = None
    """The names of what the rows stand for if not for classes, such as keypoints. None: classes."""
    transposed: bool = False
    """Whether the rows are the second dimension of the weight, as in a transposed convolution."""

    def indices(self, class_names: Sequence[str]) -> dict[str | None, list[int]]:
        """Return the rows of each class by its name, and the rows of the background under the key None."""
        names: list[str | None] = [*(class_names if self.names is None else self.names)]
        if self.background is not None:
            names.insert(0 if self.background == "first" else len(names), None)
        total = len(names) * self.per_class
        return {
            name: [
                repeat * total + index * self.per_class + row
                for repeat in range(self.repeats)
                for row in range(self.per_class)
            ]
            for index, name in enumerate(names)
        }

    def first(self, tensor: Tensor) -> Tensor:
        """Return a view of a weight or bias in which the rows are the first dimension."""
        return tensor.transpose(0, 1) if self.transposed and tensor.ndim > 1 else tensor


def class_rows_by_tensor(head: Head) -> dict[str, tuple[str, ClassRows]]:
    """Return (task of the classes, rows) by tensor name for each tensor of a head that has rows per class."""
    rows_by_tensor: dict[str, tuple[str, ClassRows]] = {}
    for prefix, task, module in _modules_with_tasks(head):
        for predictor, rows in getattr(module, "class_rows", {}).items():
            tensors = module.get_submodule(predictor).state_dict()
            rows_by_tensor |= {f"{prefix}{predictor}.{tensor}": (task, rows) for tensor in tensors}
    return rows_by_tensor


def class_columns_by_tensor(head: Head) -> dict[str, tuple[str, int]]:
    """Return (task of the classes, first column) by name for each weight of a head whose input has logits per class.

    A module declares these in its attribute ``class_columns``, which maps the name of a submodule to the number of
    input channels before the logits. The logits are the last input channels, in the order of the classes.
    """
    return {
        f"{prefix}{layer}.weight": (task, first)
        for prefix, task, module in _modules_with_tasks(head)
        for layer, first in getattr(module, "class_columns", {}).items()
    }


def _modules_with_tasks(head: Head) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield (prefix of the names of its tensors, task of its classes, module) for each module of a head."""
    tasks = {"": head.targets()}
    for name, module in head.named_modules():  # parents come before their children
        tasks[name] = module.targets() if isinstance(module, Head) else tasks[name.rpartition(".")[0]]
        yield (f"{name}." if name else ""), tasks[name], module
