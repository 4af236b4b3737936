"""Which rows of a head's tensors belong to which class: what lets weights move to a model of other classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .base import Head


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How the outputs of a predictor, the first axis of its weight and bias, are shared out to the classes in order.

    A part says so of its predictors in ``class_rows``, by their names in it: ``{"logits": ClassRows()}``.
    """

    each: int = 1
    """Rows of a class."""
    background: Literal["first", "last"] | None = None
    """Where the background has rows too."""

    def places(self, class_names: Sequence[str]) -> dict[str | None, slice]:
        """The rows of each class, by its name; the background's by None."""
        names: list[str | None] = [*class_names]
        if self.background is not None:
            names.insert(0 if self.background == "first" else len(names), None)
        return {name: slice(place * self.each, (place + 1) * self.each) for place, name in enumerate(names)}


def class_rows_by_tensor(head: Head) -> dict[str, tuple[str, ClassRows]]:
    """Every tensor of a head that has rows of classes, by its name there: the task whose classes, and which rows."""
    found: dict[str, tuple[str, ClassRows]] = {}
    tasks = {"": head.task}
    for name, module in head.named_modules():  # a part comes after what it is in
        task = module.task if isinstance(module, Head) else tasks[name.rpartition(".")[0]]
        tasks[name] = task
        for predictor, rows in getattr(module, "class_rows", {}).items():
            prefix = f"{name}.{predictor}." if name else f"{predictor}."
            found |= {prefix + tensor: (task, rows) for tensor in module.get_submodule(predictor).state_dict()}
    return found
