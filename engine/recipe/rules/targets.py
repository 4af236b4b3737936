"""Rules for what is read from the annotations: classes, and masks and keypoints if the head learns them."""

from collections.abc import Iterable

from ....data import (
    AnnotatedImagesConfig,
    CocoKeypointsConfig,
    Dataset,
    DatasetConfig,
    HashSplitConfig,
    ObjectsConfig,
    VocDetection,
)
from ....heads import required_keypoints, required_mask_format
from ....structures import UsageError
from ...config import ExperimentConfig
from ..choices import Choice

SPLITS = ("train", "val")


def read_masks(config: ExperimentConfig) -> Iterable[Choice]:
    """Read masks, in the form that the head needs; raise UsageError if the format of the data has no object masks."""
    mask_format = required_mask_format(config.model.head)
    if mask_format is None:
        return
    for split in SPLITS:
        path, dataset = _dataset_of(config, split)
        if not isinstance(dataset, ObjectsConfig):
            raise UsageError(
                f"the model has a mask branch, but data of the type {dataset.name!r} have no masks of objects",
                "choose a model without masks, or give a COCO file with segmentations",
            )
        yield Choice(f"{path}.masks", True, "the model has a mask branch")
        if mask_format != "bitmaps":
            yield Choice(f"{path}.mask_format", mask_format, f"the mask branch learns from {mask_format}")


def read_keypoints(config: ExperimentConfig) -> Iterable[Choice]:
    """Read keypoints if the head needs them; raise UsageError if the format of the data has none."""
    if required_keypoints(config.model.head) is None:
        return
    for split in SPLITS:
        path, dataset = _dataset_of(config, split)
        if not isinstance(dataset, ObjectsConfig):
            raise UsageError(
                f"the model has a keypoint branch, but data of the type {dataset.name!r} have no keypoints",
                "choose a model without keypoints, or give a COCO file with keypoints",
            )
        if dataset.keypoints is None:
            yield Choice(f"{path}.keypoints", CocoKeypointsConfig(), "the model has a keypoint branch")


def need_classes_of_training(train_set: Dataset, val_set: Dataset) -> bool:
    """Return whether validation data must be given the class names of the training data, to number them alike.

    That is so for files that number the same classes differently, and for a VOC folder or files of a labeling tool in
    which a class does not occur.
    """
    first, second = (data.classes[data.task].names for data in (train_set, val_set))
    by_objects = isinstance(val_set, VocDetection) or isinstance(
        getattr(val_set, "config", None), AnnotatedImagesConfig
    )
    if by_objects and set(second) < set(first):
        return True
    return first != second and sorted(first) == sorted(second)


def order_classes(names: tuple[str, ...], config: ExperimentConfig) -> Iterable[Choice]:
    """Give the validation data the classes of the training data in their order."""
    path, dataset = _dataset_of(config, "val")
    if "class_names" in type(dataset).model_fields:
        yield Choice(f"{path}.class_names", names, "by themselves they have other numbers")


def _dataset_of(config: ExperimentConfig, split: str) -> tuple[str, DatasetConfig]:
    """Return the path and the config of a split's data set; for a part of a divided one, those of the divided one."""
    dataset = getattr(config, split).dataset
    if isinstance(dataset, HashSplitConfig):
        return f"{split}.dataset.dataset", dataset.dataset
    return f"{split}.dataset", dataset
