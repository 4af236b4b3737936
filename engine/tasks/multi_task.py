"""What several heads predict of one image, each in the way of its own task."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores
from ..drawing import Picture, side_by_side
from .base import Rows, Task


class MultiTask(Task[dict[str, Any]]):
    """A dict with what each head predicts, by its name. A results row says in ``head`` which head's it is; scores go by
    ``boxes/bbox``, and each head has its own results file and its own part of a picture."""

    task: ClassVar[str] = "multi_head"

    def __init__(self, parts: Mapping[str, Task]) -> None:
        self.parts = parts

    def restore(self, predictions: Sequence[dict[str, Any]], batch: Batch) -> list[dict[str, Any]]:
        restored = {
            name: part.restore([prediction[name] for prediction in predictions], batch)
            for name, part in self.parts.items()
        }
        return [{name: own[place] for name, own in restored.items()} for place in range(len(predictions))]

    def rows(self, prediction: dict[str, Any], image_id: int | str) -> Rows:
        return [
            {"head": name, **row} for name, part in self.parts.items() for row in part.rows(prediction[name], image_id)
        ]

    def files(self, rows: Rows) -> dict[str, Rows]:
        return {f"results_{name}.json": _rows_of(name, rows) for name in self.parts}

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        return {
            f"{name}/{kind}": scores
            for name, part in self.parts.items()
            for kind, scores in part.score(dataset.part(part.task), _rows_of(name, rows), engine).items()
        }

    def draw_truth(self, record: Record) -> Picture:
        return side_by_side([part.draw_truth(record) for part in self.parts.values()])

    def draw(self, image: Picture, prediction: dict[str, Any], score: float) -> Picture:
        return side_by_side([part.draw(image, prediction[name], score) for name, part in self.parts.items()])

    def describe(self, prediction: dict[str, Any], score: float) -> str:
        return "; ".join(f"{name}: {part.describe(prediction[name], score)}" for name, part in self.parts.items())


def _rows_of(head: str, rows: Rows) -> Rows:
    """A head's rows, as its own task writes them."""
    return [{key: value for key, value in row.items() if key != "head"} for row in rows if row["head"] == head]
