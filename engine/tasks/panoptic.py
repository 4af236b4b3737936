"""Panoptic segmentation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import torch

from ...data import Dataset, Record
from ...evaluation import Scores, evaluate_panoptic, from_panoptic_result, to_panoptic_results
from ...formats import write_panoptic_json, write_segments
from ...inference import Picture, draw_panoptic
from ...structures import VOID, Classes, PanopticSegmentation, Segment
from ..config import EvaluationConfig
from .base import TASKS, Rows, RowSource, Task, WritesFiles


@TASKS.register("panoptic")
class PanopticTask(Task[PanopticSegmentation], WritesFiles):
    """Panoptic segmentation; a prediction is a map of segments of the image's size."""

    row_field: ClassVar[str] = "segments_info"

    def __init__(self, classes: Classes) -> None:
        assert classes.num_things is not None, "the classes of panoptic data sets are divided into things and stuff"
        self.classes, self.num_things = classes, classes.num_things

    def rows(self, prediction: PanopticSegmentation, image_id: int | str) -> Rows:
        return to_panoptic_results(prediction, image_id, self.classes.ids)

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        return {"panoptic": evaluate_panoptic(dataset.ground_truth(), rows, self.classes)}

    def draw_truth(self, record: Record) -> Picture:
        return draw_panoptic(record.image, self._truth(record), self.classes.names, self.drawing)

    def draw(self, image: Picture, prediction: PanopticSegmentation, score: float) -> Picture:
        return draw_panoptic(image, prediction, self.classes.names, self.drawing)

    def describe(self, prediction: PanopticSegmentation, score: float) -> str:
        things = sum(segment.is_thing for segment in prediction.segments)
        stuff = [self.classes.names[segment.label] for segment in prediction.segments if not segment.is_thing]
        return f"{things} things on {', '.join(stuff) or 'no stuff'}"

    def write_files(self, rows: RowSource, results: Path, file_names: Mapping[Any, str]) -> list[str]:
        """Write the results in COCO's panoptic format: ``panoptic.json``, and a PNG file per image in ``panoptic``."""
        part = results.stem.removeprefix("results").removeprefix("_panoptic")
        folder = results.with_name(f"panoptic{part}")
        folder.mkdir(exist_ok=True)
        images, annotations = [], []
        for row in rows:
            segmentation, image_id = from_panoptic_result(row, self.classes), row["image_id"]
            name = f"{quote(str(image_id), safe='')}.png"  # an id may be a path
            segments = [{key: segment[key] for key in ("id", "category_id")} for segment in row["segments_info"]]
            ids = segmentation.ids.numpy()
            annotations.append(write_segments(folder / name, ids, segments, image_id))
            images.append({"id": image_id, "file_name": name, "height": ids.shape[0], "width": ids.shape[1]})
        categories: list[dict[str, Any]] = [
            {"id": category_id, "name": name, "isthing": int(label < self.num_things)}
            for label, (name, category_id) in enumerate(zip(self.classes.names, self.classes.ids, strict=True))
        ]
        write_panoptic_json(folder.with_suffix(".json"), images, annotations, categories)
        return [f"{folder.name}.json"]

    def _truth(self, record: Record) -> PanopticSegmentation:
        """Return the segments of a record's objects and class map; crowds are void."""
        assert record.objects is not None and record.semantic is not None, "a panoptic data set has objects and stuff"
        ids = np.full(record.semantic.shape, VOID, np.int32)
        segments: list[Segment] = []

        def add(mask: np.ndarray, label: int) -> None:
            segments.append(Segment(len(segments) + 1, label, label < self.num_things))
            ids[mask] = segments[-1].id

        masks = [] if record.objects.masks is None else record.objects.masks
        for mask, label in zip(masks, record.objects.labels.tolist(), strict=True):
            add(mask > 0, label)
        for label in np.unique(record.semantic).tolist():
            if label < len(self.classes.names) - self.num_things:
                add((record.semantic == label) & (ids == VOID), self.num_things + label)
        return PanopticSegmentation(torch.from_numpy(ids), tuple(segments))
