"""The splits of a data set, opened so that everything that is wrong is counted and nothing stops the examination."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from ...data import DataPath, Dataset, DatasetConfig, build_dataset
from ...data.annotated_images import LabeledFiles
from ...data.coco_format.opening import ObjectsConfig
from ...data.from_path import DatasetPair, find_format, pair_from_paths
from ...data.voc_format import BACKGROUND, VocSegmentationConfig
from ...data.voc_format.folder import VocFolderConfig
from ...formats import LABEL_FORMATS, read_class_names
from ...structures import DataError, UsageError
from ..config import ExperimentConfig
from .file_objects import FileObjects, has_masks, read_file_objects
from .findings import SHOWN, Example, Finding


@dataclass(frozen=True, eq=False)
class Split:
    """An opened split, and what the checks ask of it; each is computed once."""

    name: str
    dataset: Dataset
    config: DatasetConfig | None = None
    """The config that the data set was opened from; None if only the data set is known."""
    masked: Dataset | None = None
    """The data set of this split opened with masks, if its files have masks and ``dataset`` was opened without them."""

    @functools.cached_property
    def pairs(self) -> Int64[ndarray, "p 2"] | None:
        """(image index, label) of every object; None if labels are unknown without reading the images."""
        try:
            return self.dataset.image_labels()
        except UsageError:
            return None

    @functools.cached_property
    def boxes(self) -> Float32[ndarray, "p 4"] | None:
        """The box of every object of ``pairs``, xyxy; None if there are no boxes."""
        try:
            return None if self.dataset.task != "detection" else self.dataset.object_boxes()
        except UsageError:
            return None

    @functools.cached_property
    def sizes(self) -> Int64[ndarray, "n 2"] | None:
        """(height, width) of every image; None if they are unknown."""
        try:
            return self.dataset.sizes
        except UsageError:
            return None

    @functools.cached_property
    def file_objects(self) -> FileObjects | None:
        """The annotations as written; None if the data set does not come from a file in COCO's sections."""
        if not isinstance(self.config, ObjectsConfig):
            return None
        return read_file_objects(self.config, self.masked is not None or self.dataset.masks)

    @functools.cached_property
    def _index_of(self) -> dict[int | str, int]:
        return {image_id: index for index, image_id in enumerate(self.dataset.image_ids)}

    @functools.cached_property
    def _row_of_id(self) -> dict[int | str | None, int]:
        objects = self.file_objects
        return {} if objects is None else {name: index for index, name in enumerate(objects.ids)}

    @functools.cached_property
    def _row_of_image(self) -> dict[int | str, int]:
        objects = self.file_objects
        return {} if objects is None else {image_id: row for row, image_id in enumerate(objects.image_ids)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels; empty for a data set of several tasks."""
        return tuple(getattr(self.dataset, "class_names", ()))

    def image_example(self, index: int, text: str = "") -> Example:
        """Return an image as an example."""
        return Example(self.dataset.file_name(index), self.dataset.image_ids[index], text=text)

    def object_example(self, index: int, text: str = "") -> Example:
        """Return the object ``index`` of ``pairs`` as an example."""
        assert self.pairs is not None, "the object is one of the pairs"
        image, label = self.pairs[index].tolist()
        box = None if self.boxes is None else _as_box(self.boxes[index])
        name = self.class_names[label] if self.class_names else str(label)
        return Example(
            self.dataset.file_name(image), self.dataset.image_ids[image], self._annotation_id(image, box), box,
            f"{name}; {text}" if text else name,
        )  # fmt: skip

    def file_example(self, index: int, text: str = "") -> Example:
        """Return the annotation ``index`` of ``file_objects`` as an example, with its box as written."""
        objects = self.file_objects
        assert objects is not None, "the annotation is one of them"
        image_id = objects.image_ids[objects.images[index].item()]
        return Example(self._file_of(image_id), image_id, objects.ids[index], _as_box(objects.corners[index]), text)

    def reported_example(self, item: int | str, is_image: bool, text: str = "") -> Example:
        """Return what a data report names by an id as an example."""
        if is_image:
            return Example(self._file_of(item), item, text=text)
        index = None
        if isinstance(self.config, ObjectsConfig) and self.file_objects is not None:
            index = self._row_of_id.get(item)
            if index is None and isinstance(item, str) and item.startswith("row "):
                found = np.flatnonzero(self.file_objects.rows == int(item.removeprefix("row ")))
                index = found[0].item() if len(found) else None
        if index is not None:
            return self.file_example(index, text)
        image_id = item.rpartition("#")[0] if isinstance(item, str) and "#" in item else None
        return Example("" if image_id is None else self._file_of(image_id), image_id, item, text=text)

    def _file_of(self, image_id: int | str) -> str:
        index = self._index_of.get(image_id)
        if index is not None:
            return self.dataset.file_name(index)
        objects = self.file_objects
        row = self._row_of_image.get(image_id)
        if isinstance(self.config, ObjectsConfig) and objects is not None and row is not None:
            return str(self.config.image_folder() / objects.file_names[row])
        return ""

    def _annotation_id(self, image: int, box: tuple[float, ...] | None) -> int | str | None:
        """Return the id of the annotation of an image whose box, clipped, is ``box``; None if it is unknown."""
        objects = self.file_objects
        if objects is None or box is None or self.sizes is None:
            return None
        row = self._row_of_image.get(self.dataset.image_ids[image])
        if row is None:
            return None
        rows = np.flatnonzero(objects.images == row)
        height, width = self.sizes[image].tolist()
        clipped = np.clip(objects.corners[rows], 0, [width, height, width, height])
        found = rows[(np.abs(clipped - np.array(box)) < 0.01).all(axis=1)]
        return objects.ids[found[0]] if len(found) else None

    def summary(self) -> str:
        """Describe the split in one line."""
        objects = "" if self.pairs is None else f", {len(self.pairs)} objects"
        names = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"{self.name}: {len(self.dataset)} images{objects}{names} from {self.dataset.report.source}"


def _as_box(values: ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(value, 2) for value in values.astype(float).tolist())
    return x1, y1, x2, y2


@dataclass(frozen=True, slots=True)
class ExaminedData:
    """The opened splits of a data set, and the experiment that they are for."""

    splits: tuple[Split, ...]
    experiment: ExperimentConfig | None = None
    """The experiment that the data are for; None if only data were given."""

    def split(self, name: str) -> Split | None:
        """Return the split of this name; None if there is none, or if it cannot be opened."""
        return next((split for split in self.splits if split.name == name), None)


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set to examine: the config of each split by its name, and the experiment that they belong to."""

    name: str
    configs: dict[str, DatasetConfig]
    experiment: ExperimentConfig | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_experiment(cls, name: str, experiment: ExperimentConfig) -> "DataSource":
        """Return the training and the validation data of an experiment."""
        return cls(name, {"train": experiment.train.dataset, "val": experiment.val.dataset}, experiment)

    @classmethod
    def of_path(cls, data: DataPath, val: Path | None = None) -> "DataSource":
        """Return the data at a path: the splits that they list, or all of them as one split.

        Raises UsageError if they are in no known format.
        """
        found = find_format(data)
        if val is None and not found.has_parts(data):
            config = _name_background(found.configure(data, "all"))
            return cls(str(data.path), {"all": config}, notes=[f"{data.path} is {found.name}"])
        pair = pair_from_paths(data, val)
        test = _find_test_split(pair) if val is None else None
        configs = {"train": pair.train, "val": pair.val} | ({} if test is None else {"test": test})
        named = {name: _name_background(config) for name, config in configs.items()}
        return cls(str(data.path), named, notes=[pair.description])

    def open(self) -> tuple[ExaminedData, list[Finding]]:
        """Open the splits; return them, and a finding for each that cannot be opened."""
        splits, findings = [], []
        for name, config in self.configs.items():
            try:
                splits.append(_open_split(name, config))
            except DataError as error:
                findings.append(_closed(name, error))
        return ExaminedData(tuple(splits), self.experiment), findings


def _find_test_split(pair: DatasetPair) -> DatasetConfig | None:
    """Return the config of the images that the data list for a test, if the pair does not use them."""
    config = pair.train
    if isinstance(config, VocFolderConfig) and isinstance(pair.val, VocFolderConfig) and config.splits:
        task = "Segmentation" if isinstance(config, VocSegmentationConfig) else "Main"
        if "test" not in pair.val.splits and (config.root / "ImageSets" / task / "test.txt").is_file():
            return config.replace(splits=("test",))
    if isinstance(config, LabeledFiles) and isinstance(pair.val, LabeledFiles):
        unused = set(LABEL_FORMATS[config.format].list_splits(config.path)) - {config.split, pair.val.split}
        return config.replace(split="test") if "test" in unused else None
    return None


def _name_background(config: DatasetConfig) -> DatasetConfig:
    """Return a config of class maps that says what 0 stands for: the first class, unless the config says otherwise."""
    if isinstance(config, VocSegmentationConfig) and config.background is None:
        names = config.class_names or read_class_names(config.root)
        if names is not None and names[0] != BACKGROUND:
            return config.replace(background=False)
    return config


def _open_split(name: str, config: DatasetConfig) -> Split:
    dataset = build_dataset(config, "skip-any")
    masked = None
    if isinstance(config, ObjectsConfig) and not config.masks:
        source = config.source()
        if has_masks(source.read(source.fingerprint())):
            try:
                masked = build_dataset(config.replace(masks=True), "skip-any")
            except DataError:  # no image is left: the masks are reported as contradictions of the boxes
                masked = None
    return Split(name, dataset, config, masked)


def _closed(name: str, error: DataError) -> Finding:
    """Return the finding about a split that cannot be opened."""
    example = Example(error.file or "", error.image_id, error.annotation_id)
    return Finding(
        error.case, "error", name, f"the data cannot be used: {error.what}", error.fix or "correct it",
        examples=(example,), unusable=True,
    )  # fmt: skip


def first_examples(examples: Iterable[Example]) -> tuple[Example, ...]:
    """Return the examples that a finding shows, of any number."""
    return tuple(example for example, _ in zip(examples, range(SHOWN), strict=False))


def chosen_examples(split: Split, rows: Sequence[int] | ndarray, in_file: bool = False) -> tuple[Example, ...]:
    """Return the first of these objects as examples: rows of ``pairs``, or of ``file_objects`` if ``in_file``."""
    make = split.file_example if in_file else split.object_example
    return tuple(make(int(row)) for row in list(rows[:SHOWN]))
