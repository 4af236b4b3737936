"""Detection data sets in the formats of labeling tools."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from ..formats import LABEL_FORMATS, LabelRequest
from ..structures import Config, suggest
from .coco_format import CocoDataset, CocoSemantic, ObjectsConfig, ObjectsSemanticConfig
from .coco_format.source import AnnotationSource, LabelSource
from .dataset import DATASETS
from .report import Policy


class LabeledFiles(Config):
    """The fields of a config that say which annotations of a labeling tool to read."""

    path: Path
    """The file or folder with the annotations."""
    format: str
    """The name of the format: ``yolo``, ``labelme`` or another of ``vertebra.formats.LABEL_FORMATS``."""
    split: str | None = None
    """One of the splits that the data list, such as ``train``; None takes all images."""
    images: Path | None = None
    """The folder of the images; None: where the format puts them."""

    @field_validator("format")
    @classmethod
    def _require_known_format(cls, name: str) -> str:
        if name not in LABEL_FORMATS:
            raise ValueError(f"there is no format {name!r}; {suggest(name, LABEL_FORMATS)}")
        return name


class AnnotatedImagesConfig(LabeledFiles, ObjectsConfig):
    """A detection data set whose annotations are in the format of a labeling tool; docs/data.md lists the formats.

    The id of an image is its path below the folder of the images.
    """

    name: Literal["annotated_images"] = "annotated_images"

    def source(self) -> AnnotationSource:
        return LabelSource(self.format, self._request)

    def image_folder(self) -> Path:
        return LABEL_FORMATS[self.format].find_root(self._request)

    @property
    def _request(self) -> LabelRequest:
        return LabelRequest(self.path, self.split, self.images, self.class_names or ())


class AnnotatedSemanticConfig(LabeledFiles, ObjectsSemanticConfig):
    """A semantic segmentation data set whose class maps are made from masks in the format of a labeling tool."""

    name: Literal["annotated_semantic"] = "annotated_semantic"

    def objects(self) -> ObjectsConfig:
        return AnnotatedImagesConfig(path=self.path, format=self.format, split=self.split, images=self.images)


@DATASETS.register("annotated_images", AnnotatedImagesConfig)
def open_annotated_images(policy: Policy, config: AnnotatedImagesConfig) -> CocoDataset:
    """Open and validate a data set in the format of a labeling tool."""
    return CocoDataset(policy, config)


@DATASETS.register("annotated_semantic", AnnotatedSemanticConfig)
def open_annotated_semantic(policy: Policy, config: AnnotatedSemanticConfig) -> CocoSemantic:
    """Open and validate a data set of class maps made from masks in the format of a labeling tool."""
    return CocoSemantic(policy, config)
