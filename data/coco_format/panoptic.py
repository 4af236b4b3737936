"""Panoptic data sets in COCO's format, from whose segment maps boxes, masks and class maps are derived."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64, UInt8
from numpy import ndarray

from ...formats.panoptic import read_segment_ids
from ...formats.rle import encode_mask
from ...structures import IGNORE, Classes, PanopticSegmentation, Segment, panoptic_classes
from ..dataset import DATASETS, Dataset, LazyMaps, select_image_labels
from ..image_files import read_image_record
from ..objects import Objects
from ..report import DataReport, Policy
from ..types import Record
from .panoptic_opening import CocoPanopticConfig, open_panoptic


@DATASETS.register("coco_panoptic", CocoPanopticConfig)
class CocoPanoptic(Dataset):
    """A panoptic data set in COCO's format, with ground truth for the tasks panoptic, detection and semantic.

    Boxes enclose the pixels of the segments. Crowds of things are ignore regions; void is 255 in the class map.
    """

    task: ClassVar[str] = "panoptic"
    masks: bool = True

    def __init__(self, policy: Policy, config: CocoPanopticConfig) -> None:
        self.config = config
        self.report = DataReport(policy, config.annotations, kinds=("images",))
        contents, self._digest = open_panoptic(config, self.report)
        self.arrays = contents.arrays
        self.indices: Int64[ndarray, " n"] = self.arrays["used"]
        self.image_ids = self.arrays["image_ids"][self.indices].tolist()
        things, stuff = (
            Classes(tuple(names), tuple(ids)) for names, ids in (contents.facts["things"], contents.facts["stuff"])
        )
        self._classes = panoptic_classes(things, stuff, config.semantic_things)
        self.num_things = len(things.names)
        self._semantic_labels = self._map_to_semantic(len(stuff.names))

    def _map_to_semantic(self, num_stuff: int) -> UInt8[ndarray, " k"]:
        """Return the class map value of each panoptic label, followed by that of void."""
        things = np.arange(self.num_things) if self.config.semantic_things == "each" else np.zeros(self.num_things)
        return np.concatenate([num_stuff + things, np.arange(num_stuff), [IGNORE]]).astype(np.uint8)

    @property
    def classes(self) -> Mapping[str, Classes]:
        """The classes by task: ``panoptic`` (things, then stuff), ``detection`` and ``semantic``."""
        return self._classes

    def part(self, task: str) -> Dataset:
        """Return a view of the data set for one task; raise UsageError if it has no ground truth for the task."""
        super().part(task)
        return self if task == self.task else PanopticPart(self, task)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, as declared in the file and verified in the image headers."""
        return self.arrays["sizes"][self.indices]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, panoptic label) pairs of all segments except crowds."""
        starts, labels = self.arrays["starts"], self.arrays["labels"]
        pairs = np.stack([np.repeat(np.arange(len(starts) - 1), np.diff(starts)), labels], axis=1)
        return select_image_labels(pairs[~self.arrays["crowd"] & (labels >= 0)], self.indices, len(starts) - 1)

    def file_name(self, index: int) -> str:
        return str(self.config.images / self.arrays["file_names"][self.indices[index]].item().decode())

    def read_image(self, index: int) -> Record:
        return read_image_record(self.file_name(index), self.image_ids[index], self.config.decode_short_side)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the things, with boxes and masks, and the class map to a record."""
        segmentation = self.read_segmentation(index)
        ids = segmentation.ids.numpy()
        things = [segment for segment in segmentation.segments if segment.is_thing]
        objects = [segment for segment in things if not segment.crowd]
        masks = np.stack([ids == segment.id for segment in objects]) if objects else np.zeros((0, *ids.shape), bool)
        crowds = [ids == segment.id for segment in things if segment.crowd]
        labels = np.array([segment.label for segment in objects], np.int64)
        return replace(
            record,
            objects=Objects(_boxes(masks), labels, _boxes(crowds), masks.view(np.uint8)),
            semantic=self._class_map(segmentation),
        )

    def read_segmentation(self, index: int) -> PanopticSegmentation:
        """Read the panoptic segmentation of an image; raise DataError if the PNG and JSON files disagree."""
        image = self.indices[index].item()
        rows = slice(*self.arrays["starts"][image : image + 2].tolist())
        segment_ids, labels, crowd = (self.arrays[name][rows].tolist() for name in ("segment_ids", "labels", "crowd"))
        path = self.config.folder / self.arrays["png_names"][image].item().decode()
        height, width = self.arrays["sizes"][image].tolist()
        ids = read_segment_ids(path, segment_ids, (height, width), self.image_ids[index])
        segments = []
        for segment_id, label, is_crowd in zip(segment_ids, labels, crowd, strict=True):
            if label < 0:  # a class that is not selected
                ids[ids == segment_id] = 0
            else:
                segments.append(Segment(segment_id, label, label < self.num_things, crowd=is_crowd))
        return PanopticSegmentation(torch.from_numpy(ids), tuple(segments))

    def read_class_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Read the class map of an image."""
        return self._class_map(self.read_segmentation(index))

    def _class_map(self, segmentation: PanopticSegmentation) -> UInt8[ndarray, "h w"]:
        ignored = self.config.crowd == "ignore"
        label_of = {segment.id: -1 if segment.crowd and ignored else segment.label for segment in segmentation.segments}
        return self._semantic_labels[replace_ids(segmentation.ids.numpy(), label_of)]

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the JSON file."""
        return self._digest

    def ground_truth(self) -> Any:
        """Return a mapping from image id to :class:`PanopticSegmentation`, which is read on access."""
        return LazyMaps(self.image_ids, self.read_segmentation)


def replace_ids(ids: Int32[ndarray, "h w"], label_of: Mapping[int, int]) -> Int64[ndarray, "h w"]:
    """Return the label of each pixel's segment id; -1 for ids that are not in ``label_of``."""
    known = np.array(sorted(label_of), np.int64)
    labels = np.array([*(label_of[segment_id] for segment_id in known.tolist()), -1], np.int64)
    positions = np.searchsorted(known, ids)
    found = np.concatenate([known, [-1]])[positions] == ids
    return labels[np.where(found, positions, len(known))]


def _boxes(masks: Sequence[Bool[ndarray, "h w"]] | Bool[ndarray, "n h w"]) -> Float32[ndarray, "n 4"]:
    """Return the box (x1, y1, x2, y2) around the pixels of each mask, none of which may be empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


class PanopticPart(Dataset):
    """A view of a panoptic data set as one for detection or for semantic segmentation."""

    def __init__(self, dataset: CocoPanoptic, task: str) -> None:
        self._dataset, self.task = dataset, task
        self.masks = task == "detection"
        self.class_names, self.category_ids = dataset.classes[task].names, dataset.classes[task].ids
        self.image_ids, self.report = dataset.image_ids, dataset.report

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        return self._dataset.sizes

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all things or, for semantic segmentation, all segments."""
        pairs = self._dataset.image_labels()
        if self.task == "detection":
            return pairs[pairs[:, 1] < self._dataset.num_things]
        return np.stack([pairs[:, 0], self._dataset._semantic_labels[pairs[:, 1]]], axis=1)

    def file_name(self, index: int) -> str:
        return self._dataset.file_name(index)

    def read_image(self, index: int) -> Record:
        return self._dataset.read_image(index)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add only the annotations of this task to a record."""
        other = "semantic" if self.task == "detection" else "objects"
        return replace(self._dataset.add_annotations(record, index), **{other: None})

    def annotation_digest(self) -> str:
        return self._dataset.annotation_digest()

    def ground_truth(self) -> Any:
        """Return a mapping from image id to class map or, for detection, a dict in COCO's format with the things."""
        if self.task == "semantic":
            return LazyMaps(self.image_ids, self._dataset.read_class_map)
        entries = [entry for index in range(len(self)) for entry in self._coco_entries(index)]
        images = [
            {"id": image_id, "file_name": Path(self.file_name(index)).name, "height": height, "width": width}
            for index, (image_id, (height, width)) in enumerate(zip(self.image_ids, self.sizes.tolist(), strict=True))
        ]
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        annotations = [{"id": number, **entry} for number, entry in enumerate(entries, start=1)]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}

    def _coco_entries(self, index: int) -> list[dict[str, Any]]:
        """Return the things of an image in the format of COCO's ``annotations``, without ids."""
        segmentation = self._dataset.read_segmentation(index)
        entries = []
        for segment in segmentation.segments:
            if segment.is_thing:
                mask = segmentation.mask(segment).numpy()
                x1, y1, x2, y2 = _boxes([mask])[0].tolist()
                entries.append(
                    {
                        "image_id": self.image_ids[index],
                        "category_id": self.category_ids[segment.label],
                        "iscrowd": int(segment.crowd),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": float(mask.sum()),
                        "segmentation": encode_mask(mask),
                    }
                )
        return entries
