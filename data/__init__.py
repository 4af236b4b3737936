"""Layer 2*: data sets, their validation, transforms, sampling and loading. The imports below fill the registries."""

import os

# Albumentations reads this when it is imported; without it, it would check the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from ..structures import COCO_CLASSES, COCO_STUFF_CLASSES
from .annotated_images import AnnotatedImagesConfig, AnnotatedSemanticConfig
from .coco_format import (
    CocoConfig,
    CocoDataset,
    CocoKeypointsConfig,
    CocoPanoptic,
    CocoPanopticConfig,
    CocoSemantic,
    CocoSemanticConfig,
    ObjectsConfig,
)
from .conversion import convert_data
from .dataset import DATASETS, Dataset, DatasetConfig, build_dataset, require_same_classes
from .from_path import DataPath, DatasetPair, pair_from_paths
from .hash_split import HashSplitConfig
from .image_files import require_enough_pixels
from .image_folder import ImageFolder, ImageFolderConfig
from .joint import JointConfig, JointDataset
from .learnable import require_objects, warn_without_objects
from .loader import LoaderConfig, eval_loader, train_loader
from .mask_folder import MaskFolder, MaskFolderConfig
from .mixing import (
    MIXES,
    CopyPasteConfig,
    Mix,
    MixConfig,
    MixSequenceConfig,
    MixupConfig,
    MosaicConfig,
    build_mix,
)
from .object_fields import (
    OBJECT_FIELDS,
    Carried,
    ConstantField,
    Coverable,
    Keypoints,
    ObjectField,
    Window,
    declare_object_field,
)
from .objects import Objects
from .polygons import PolygonMask, pad_polygon_masks
from .report import DataReport, Policy
from .resize_annotations import resize_annotations
from .sampling import SamplingConfig, Shard
from .shapes import OutlinesConfig, ShapeCropsConfig, ShapesConfig, ShapesPanopticConfig, ShapesSemanticConfig
from .transforms import (
    CenterCropConfig,
    ColorJitterConfig,
    RandomCropConfig,
    ResizeConfig,
    ScaledCropConfig,
    Transform,
    TransformConfig,
    as_transform,
    build_transform,
)
from .types import Batch, Record, Sample, collate
from .voc_format import VOC_CLASSES, VocConfig, VocDetection, VocSegmentation, VocSegmentationConfig
from .workers import worker_errors

__all__ = [
    "COCO_CLASSES",
    "COCO_STUFF_CLASSES",
    "DATASETS",
    "MIXES",
    "OBJECT_FIELDS",
    "VOC_CLASSES",
    "AnnotatedImagesConfig",
    "AnnotatedSemanticConfig",
    "Batch",
    "Carried",
    "CenterCropConfig",
    "CocoConfig",
    "CocoDataset",
    "CocoKeypointsConfig",
    "CocoPanoptic",
    "CocoPanopticConfig",
    "CocoSemantic",
    "CocoSemanticConfig",
    "ColorJitterConfig",
    "ConstantField",
    "CopyPasteConfig",
    "Coverable",
    "DataPath",
    "DataReport",
    "Dataset",
    "DatasetConfig",
    "DatasetPair",
    "HashSplitConfig",
    "ImageFolder",
    "ImageFolderConfig",
    "JointConfig",
    "JointDataset",
    "Keypoints",
    "LoaderConfig",
    "MaskFolder",
    "MaskFolderConfig",
    "Mix",
    "MixConfig",
    "MixSequenceConfig",
    "MixupConfig",
    "MosaicConfig",
    "ObjectField",
    "Objects",
    "ObjectsConfig",
    "OutlinesConfig",
    "Policy",
    "PolygonMask",
    "RandomCropConfig",
    "Record",
    "ResizeConfig",
    "Sample",
    "SamplingConfig",
    "ScaledCropConfig",
    "ShapeCropsConfig",
    "ShapesConfig",
    "ShapesPanopticConfig",
    "ShapesSemanticConfig",
    "Shard",
    "Transform",
    "TransformConfig",
    "VocConfig",
    "VocDetection",
    "VocSegmentation",
    "VocSegmentationConfig",
    "Window",
    "as_transform",
    "build_dataset",
    "build_mix",
    "build_transform",
    "collate",
    "convert_data",
    "declare_object_field",
    "eval_loader",
    "pad_polygon_masks",
    "pair_from_paths",
    "require_enough_pixels",
    "require_objects",
    "require_same_classes",
    "resize_annotations",
    "train_loader",
    "warn_without_objects",
    "worker_errors",
]
