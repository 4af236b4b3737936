"""Predictions of several heads, or of a head with several tasks, each handled by its own task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...data import Dataset, Record
from ...evaluation import Scores
from ...formats import write_results
from ...inference import Picture, side_by_side
from ..config import EvaluationConfig
from .base import Rows, RowSource, Task, WritesFiles, WritesImageFiles


@dataclass(frozen=True, slots=True)
class TaskOfHead:
    """The task of one of several heads, or one of the tasks of a head."""

    task: Task
    target_task: str
    """The part of the data set that holds the ground truth."""


class MultiTask(Task[dict[str, Any]]):
    """The task of a model with several heads; a prediction is a dict with the prediction of each head by its name.

    It also serves a single head with several tasks, such as Panoptic FPN; the names are then those of the tasks.

    Each results row has the name of its head in ``head``, and scores are named ``HEAD/SCORE`` (``boxes/bbox``). Each
    head has its own results file, and its own panel in pictures.
    """

    def __init__(self, parts: Mapping[str, TaskOfHead]) -> None:
        self.parts = parts
        self.higher_is_better = next(iter(parts.values())).task.higher_is_better

    def rows(self, prediction: dict[str, Any], image_id: int | str) -> Rows:
        return [
            {"head": name, **row}
            for name, part in self.parts.items()
            for row in part.task.rows(prediction[name], image_id)
        ]

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        return {
            f"{name}/{scored}": scores
            for name, part in self.parts.items()
            for scored, scores in part.task.score(
                dataset.part(part.target_task), list(_RowsOfHead(rows, name)), config
            ).items()
        }

    def draw_truth(self, record: Record) -> Picture:
        return side_by_side([part.task.draw_truth(record) for part in self.parts.values()])

    def draw(self, image: Picture, prediction: dict[str, Any], score: float) -> Picture:
        return side_by_side([part.task.draw(image, prediction[name], score) for name, part in self.parts.items()])

    def describe(self, prediction: dict[str, Any], score: float) -> str:
        return "; ".join(f"{name}: {part.task.describe(prediction[name], score)}" for name, part in self.parts.items())


@dataclass(frozen=True, slots=True)
class _RowsOfHead:
    """The rows of one head without their ``head`` field."""

    rows: RowSource
    head: str

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            if row["head"] == self.head:
                yield {key: value for key, value in row.items() if key != "head"}


def results_files(task: Task, rows: RowSource) -> dict[str, RowSource]:
    """Return the rows by file name: ``results.json``, or ``results_HEAD.json`` for each of several heads."""
    if isinstance(task, MultiTask):
        return {f"results_{name}.json": _RowsOfHead(rows, name) for name in task.parts}
    return {"results.json": rows}


def write_results_files(
    task: Task, rows: RowSource, folder: Path, file_names: Mapping[Any, str] = MappingProxyType({})
) -> list[str]:
    """Write the results files of a task and the files that :class:`WritesFiles` tasks add; return the file names.

    ``file_names`` maps image ids to file names, if these are known.
    """
    files = results_files(task, rows)
    parts = [part.task for part in task.parts.values()] if isinstance(task, MultiTask) else [task]
    written = []
    for part, (name, rows_of_file) in zip(parts, files.items(), strict=True):
        write_results(folder / name, rows_of_file)
        if isinstance(part, WritesFiles):
            written += part.write_files(rows_of_file, folder / name, file_names)
    return [*files, *written]


def write_image_files(task: Task, prediction: Any, folder: Path, name: str) -> None:
    """Write the files that :class:`WritesImageFiles` tasks add for an image with this name in the output."""
    if isinstance(task, MultiTask):
        parts = {f"_{head}": (part.task, prediction[head]) for head, part in task.parts.items()}
    else:
        parts = {"": (task, prediction)}
    for ending, (part, predicted) in parts.items():
        if isinstance(part, WritesImageFiles):
            path = folder / f"{part.image_folder}{ending}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_image_file(predicted, path)
