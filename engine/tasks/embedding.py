"""Image embeddings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...data import Dataset, Record
from ...evaluation import Scores, evaluate_embeddings, to_embedding_results
from ...formats import write_vectors
from ...inference import Picture, draw_lines
from ...structures import Classes, Embedding
from ..config import EvaluationConfig
from .base import TASKS, Rows, RowSource, Task, WritesFiles

SHOWN = 4
"""The number of values shown in the description of an embedding."""


@TASKS.register("embedding")
class EmbeddingTask(Task[Embedding], WritesFiles):
    """Image embeddings: a prediction is a vector that is similar to the vectors of other images of its class.

    Scored are retrieval and, if the data set has pairs, verification.
    """

    row_field: ClassVar[str] = "embedding"
    open_set: ClassVar[bool] = True

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def rows(self, prediction: Embedding, image_id: int | str) -> Rows:
        return to_embedding_results(prediction, image_id)

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        return evaluate_embeddings(dataset.ground_truth(), rows, self.classes.names, dataset.pairs)

    def draw_truth(self, record: Record) -> Picture:
        assert record.label is not None, "a data set for embeddings has labels"
        return draw_lines(record.image, [self.classes.names[record.label]], self.drawing)

    def draw(self, image: Picture, prediction: Embedding, score: float) -> Picture:
        return draw_lines(image, [self.describe(prediction, score)], self.drawing)

    def describe(self, prediction: Embedding, score: float) -> str:
        shown = " ".join(f"{value:.2f}" for value in prediction.vector[:SHOWN].tolist())
        return f"{len(prediction)} values: {shown} ..."

    def write_files(self, rows: RowSource, results: Path, file_names: Mapping[Any, str]) -> list[str]:
        """Write ``vectors.npz`` with the file name of each image or, if unknown, its id (see :func:`write_vectors`)."""
        path = results.with_name(results.stem.replace("results", "vectors") + ".npz")
        names = [file_names.get(row["image_id"], str(row["image_id"])) for row in rows]
        write_vectors(path, names, (row["embedding"] for row in rows))
        return [path.name]
