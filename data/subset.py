"""Some images of a data set, as a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ..structures import Classes
from .dataset import Dataset, select_image_labels
from .label_maps import LazySemanticMaps
from .types import Record


class SubsetDataset(Dataset):
    """These images of a data set, in this order."""

    def __init__(self, dataset: Dataset, image_ids: Sequence[int | str]) -> None:
        places = {image_id: place for place, image_id in enumerate(dataset.image_ids)}
        self._whole = dataset
        self._places = np.array([places[image_id] for image_id in image_ids], np.int64)  # an array, for workers
        self.task, self.metrics = dataset.task, dataset.metrics
        self.masks, self.mask_format = dataset.masks, dataset.mask_format
        self.report = dataset.report
        self.image_ids = image_ids

    @property
    def classes(self) -> Mapping[str, Classes]:
        """Those of the whole data set."""
        return self._whole.classes

    def __len__(self) -> int:
        return len(self._places)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """Those of these images."""
        return self._whole.sizes[self._places]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Those of these images."""
        return select_image_labels(self._whole.image_labels(), self._places, len(self._whole))

    def read_image(self, index: int) -> Record:
        """The image alone."""
        return self._whole.read_image(self._places[index].item())

    def add_annotations(self, record: Record, index: int) -> Record:
        """With its truth."""
        return self._whole.add_annotations(record, self._places[index].item())

    def annotation_digest(self) -> str:
        """That of the whole data set."""
        return self._whole.annotation_digest()

    def ground_truth(self) -> Any:
        """The truth of these images, in the form that the whole data set gives it."""
        truth, image_ids = self._whole.ground_truth(), self.image_ids
        if self.task == "semantic":
            return LazySemanticMaps(image_ids, lambda place: truth[image_ids[place]])
        if self.task == "classification":
            return {image_id: truth[image_id] for image_id in image_ids}
        images, chosen = {image["id"]: image for image in truth["images"]}, set(image_ids)
        entries = [entry for entry in truth["annotations"] if entry["image_id"] in chosen]
        return {**truth, "images": [images[image_id] for image_id in image_ids], "annotations": entries}
