"""Layer 0: the typed values that all other layers use. No ``nn.Module`` and no file access.

The conventions of the project:

- Boxes are ``xyxy``, in absolute pixels of the *resized* image, continuous (a box of one pixel is 1 wide; no +1).
- Labels are ``0..K-1`` and none of them is the background; only a head that needs a background logit knows of it.
- Padding is at the bottom and right.
- Keypoints are (x, y, visibility 0, 1 or 2) in the ground truth, and (x, y, score) in predictions.
- A semantic map is int64 ``h w``; 255 is ignored.
- Values are checked at construction. A check that has to read a tensor runs only on the CPU. Checks that need the size
  of the image or the number of classes are in :func:`check_targets`, which heads call in their losses.
- Pyramid levels are named from fine to coarse: ``c2..c5`` for a backbone, ``p2..p7`` for a neck. They have names and
  not indices because with dilation two levels can have the same stride.
"""

from .classes import THINGS, Classes, panoptic_classes
from .classification import Classification
from .coco_classes import COCO_CLASSES, COCO_STUFF, COCO_STUFF_CLASSES, COCO_THINGS
from .config import (
    Config,
    NonNegative,
    PartConfig,
    UnitInterval,
    revalidate,
    suggest,
    usage_error_from_validation,
    value_errors_as_usage_errors,
)
from .copies import copy_all
from .detections import Detections
from .device import DeviceLike, pick_device
from .embedding import Embedding
from .errors import (
    CheckpointError,
    DataError,
    MemoryFullError,
    NonFiniteError,
    PeerError,
    UsageError,
    VerificationError,
    VertebraError,
    WorkerError,
    is_out_of_memory,
)
from .features import FeatureInfo, Features, Level, Levels
from .field_table import FieldTable, require_one_per_box
from .images import MAX_PIXELS, Images
from .input import CAFFE_INPUT, DETECTRON2_INPUT, DETECTRON2_INPUT_WITH_STD, InputConfig
from .instances import FieldCheck, Instances, TensorGroup, declare_instance_field
from .keypoints import COCO_KEYPOINTS, COCO_SKELETON, HIDDEN, UNLABELED, VISIBLE, Skeleton, find_flip_pairs
from .masks import MaskFormat, PasteRule, RoIMasks
from .numbers import is_number
from .panoptic import VOID, PanopticMergeConfig, PanopticParts, PanopticSegmentation, Segment
from .polygons import PolygonMasks
from .preprocessing import ImagePreprocessing, KeepSize, ResizedCenterCrop, Rounding, ShortSideResize
from .registry import Registry, RegistryEntry
from .semantic import IGNORE, LogitWindow, SemanticLogits
from .targets import check_targets, require_labels_below

__all__ = [
    "CAFFE_INPUT",
    "COCO_CLASSES",
    "COCO_KEYPOINTS",
    "COCO_SKELETON",
    "COCO_STUFF",
    "COCO_STUFF_CLASSES",
    "COCO_THINGS",
    "DETECTRON2_INPUT",
    "DETECTRON2_INPUT_WITH_STD",
    "HIDDEN",
    "IGNORE",
    "MAX_PIXELS",
    "THINGS",
    "UNLABELED",
    "VISIBLE",
    "VOID",
    "CheckpointError",
    "Classes",
    "Classification",
    "Config",
    "DataError",
    "Detections",
    "DeviceLike",
    "Embedding",
    "FeatureInfo",
    "Features",
    "FieldCheck",
    "FieldTable",
    "ImagePreprocessing",
    "Images",
    "InputConfig",
    "Instances",
    "KeepSize",
    "Level",
    "Levels",
    "LogitWindow",
    "MaskFormat",
    "MemoryFullError",
    "NonFiniteError",
    "NonNegative",
    "PanopticMergeConfig",
    "PanopticParts",
    "PanopticSegmentation",
    "PartConfig",
    "PasteRule",
    "PeerError",
    "PolygonMasks",
    "Registry",
    "RegistryEntry",
    "ResizedCenterCrop",
    "RoIMasks",
    "Rounding",
    "Segment",
    "SemanticLogits",
    "ShortSideResize",
    "Skeleton",
    "TensorGroup",
    "UnitInterval",
    "UsageError",
    "VerificationError",
    "VertebraError",
    "WorkerError",
    "check_targets",
    "copy_all",
    "declare_instance_field",
    "find_flip_pairs",
    "is_number",
    "is_out_of_memory",
    "panoptic_classes",
    "pick_device",
    "require_labels_below",
    "require_one_per_box",
    "revalidate",
    "suggest",
    "usage_error_from_validation",
    "value_errors_as_usage_errors",
]
