"""Floor 2*: images with objects, checked, transformed and batched. The imports below fill the registry."""

from .coco import CocoConfig, CocoDataset
from .coco_names import COCO_CLASSES
from .dataset import Dataset, DatasetConfig, build_dataset, datasets, require_same_classes
from .images import check_image, read_image
from .loader import LoaderConfig, eval_loader, train_loader
from .report import DataReport, Policy
from .shapes import ShapesConfig
from .transforms import Transform, TransformConfig
from .types import Batch, Record, Sample, collate

__all__ = [
    "COCO_CLASSES",
    "Batch",
    "CocoConfig",
    "CocoDataset",
    "DataReport",
    "Dataset",
    "DatasetConfig",
    "LoaderConfig",
    "Policy",
    "Record",
    "Sample",
    "ShapesConfig",
    "Transform",
    "TransformConfig",
    "build_dataset",
    "check_image",
    "collate",
    "datasets",
    "eval_loader",
    "read_image",
    "require_same_classes",
    "train_loader",
]
