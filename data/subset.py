"""A data set of some images of another data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from ..structures import Classes
from .dataset import Dataset, LazyMaps, is_on_images, select_image_labels
from .types import Record


class SubsetDataset(Dataset):
    """The images of a data set with these ids, in the order of ``image_ids``."""

    def __init__(self, dataset: Dataset, image_ids: Sequence[int | str]) -> None:
        index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
        self._dataset = dataset
        # An array and not a list, since worker processes can share its memory.
        self._indices = np.array([index_of[image_id] for image_id in image_ids], np.int64)
        self.task, self.metrics = dataset.task, dataset.metrics
        self.masks, self.mask_format, self.skeleton = dataset.masks, dataset.mask_format, dataset.skeleton
        self.report = dataset.report
        self.image_ids = image_ids
        kept = set(image_ids)
        self.pairs = [pair for pair in dataset.pairs if pair.first in kept and pair.second in kept]

    @property
    def classes(self) -> Mapping[str, Classes]:
        return self._dataset.classes

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        return self._dataset.sizes[self._indices]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        return select_image_labels(self._dataset.image_labels(), self._indices, len(self._dataset))

    def object_boxes(self) -> Float32[ndarray, "p 4"]:
        images = self._dataset.image_labels()[:, 0]
        return self._dataset.object_boxes()[is_on_images(images, self._indices, len(self._dataset))]

    def file_name(self, index: int) -> str:
        return self._dataset.file_name(self._indices[index].item())

    def read_image(self, index: int) -> Record:
        return self._dataset.read_image(self._indices[index].item())

    def add_annotations(self, record: Record, index: int) -> Record:
        return self._dataset.add_annotations(record, self._indices[index].item())

    def annotation_digest(self) -> str:
        """Return the annotation digest of the full data set."""
        return self._dataset.annotation_digest()

    def ground_truth(self) -> Any:
        """Return the ground truth of the chosen images, in the format of the full data set."""
        ground_truth, image_ids = self._dataset.ground_truth(), self.image_ids
        if self.task in ("semantic", "panoptic"):
            return LazyMaps(image_ids, lambda index: ground_truth[image_ids[index]])
        if self.task == "classification":
            return {image_id: ground_truth[image_id] for image_id in image_ids}
        images, chosen = {image["id"]: image for image in ground_truth["images"]}, set(image_ids)
        entries = [entry for entry in ground_truth["annotations"] if entry["image_id"] in chosen]
        return {**ground_truth, "images": [images[image_id] for image_id in image_ids], "annotations": entries}
