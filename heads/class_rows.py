"""Which rows of a head's tensors belong to which class, so that weights can move to a model of other classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .base import Head


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How the first axis of a predictor's weight and bias is divided between the classes, in their order.

    A part declares this for its predictors in ``class_rows``, by their names in it: ``{"logits": ClassRows()}``.
    """

    per_class: int = 1
    """Rows of one class."""
    background: Literal["first", "last"] | None = None
    """Where the background has rows too; None where it has none."""
    repeats: int = 1
    """How often the rows of all classes are repeated: once for each anchor of a cell."""

    def indices(self, class_names: Sequence[str]) -> dict[str | None, list[int]]:
        """Return the rows of each class by its name, and those of the background by None."""
        names: list[str | None] = [*class_names]
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


def class_rows_by_tensor(head: Head) -> dict[str, tuple[str, ClassRows]]:
    """Return each tensor of a head that has rows of classes, by its name: the task of the classes, and the rows."""
    rows_by_tensor: dict[str, tuple[str, ClassRows]] = {}
    tasks = {"": head.targets()}
    for name, module in head.named_modules():  # a module comes after the one that it is in
        task = module.targets() if isinstance(module, Head) else tasks[name.rpartition(".")[0]]
        tasks[name] = task
        for predictor, rows in getattr(module, "class_rows", {}).items():
            prefix = f"{name}.{predictor}." if name else f"{predictor}."
            tensors = module.get_submodule(predictor).state_dict()
            rows_by_tensor |= {prefix + tensor: (task, rows) for tensor in tensors}
    return rows_by_tensor
