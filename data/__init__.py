"""Floor 2*: images and what is known of them, checked, transformed, batched. The imports below fill the registries."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import: no look at the network for a newer version

from .coco import CocoConfig, CocoDataset
from .coco_names import COCO_CLASSES
from .crops import CenterCropConfig, RandomCropConfig
from .dataset import Dataset, DatasetConfig, build_dataset, datasets, require_same_classes
from .image_folder import ImageFolder, ImageFolderConfig
from .images import IMAGE_SUFFIXES, check_image, read_image
from .loader import LoaderConfig, eval_loader, train_loader
from .report import DataReport, Policy
from .resize import ResizeConfig
from .shapes import ShapeCropsConfig, ShapesConfig
from .transforms import Transform, build_transform, transforms
from .types import Batch, Objects, Record, Sample, collate

__all__ = [
    "COCO_CLASSES",
    "IMAGE_SUFFIXES",
    "Batch",
    "CenterCropConfig",
    "CocoConfig",
    "CocoDataset",
    "DataReport",
    "Dataset",
    "DatasetConfig",
    "ImageFolder",
    "ImageFolderConfig",
    "LoaderConfig",
    "Objects",
    "Policy",
    "RandomCropConfig",
    "Record",
    "ResizeConfig",
    "Sample",
    "ShapeCropsConfig",
    "ShapesConfig",
    "Transform",
    "build_dataset",
    "build_transform",
    "check_image",
    "collate",
    "datasets",
    "eval_loader",
    "read_image",
    "require_same_classes",
    "train_loader",
    "transforms",
]
