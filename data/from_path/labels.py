"""Data sets in the formats of labeling tools, given by their path."""

from ...formats import LabelFormat
from ...structures import UsageError
from ..annotated_images import AnnotatedImagesConfig, AnnotatedSemanticConfig
from ..dataset import DatasetConfig
from .base import DataPath, Part, PathFormat

PAIRS = (("train", "val"), ("train", "valid"), ("train", "test"))
"""The names of splits for training and validation, in the order of preference."""


def path_format(label_format: LabelFormat) -> PathFormat:
    """Return how a format of annotations is found and configured."""

    def find_pair(data: DataPath) -> tuple[str, str] | None:
        splits = label_format.list_splits(data.path)
        return next((pair for pair in PAIRS if set(pair) <= set(splits)), None)

    def configure(data: DataPath, part: Part) -> DatasetConfig:
        if data.images is not None and not label_format.takes_images:
            raise UsageError(
                f"{label_format.title} says where its images are", "leave out --images (images= in Python)",
                file=data.path,
            )  # fmt: skip
        pair = find_pair(data) if part != "all" else None
        split = None if pair is None else pair[0 if part == "train" else 1]
        config_type = AnnotatedSemanticConfig if data.task == "semantic" else AnnotatedImagesConfig
        return config_type(path=data.path, format=label_format.name, split=split, images=data.images)

    return PathFormat(
        key=label_format.name,
        name=label_format.title,
        expected=label_format.expected,
        recognize=label_format.recognize,
        has_parts=lambda data: find_pair(data) is not None,
        configure=configure,
    )
