"""Floor 0: the typed values that all other floors use. No ``nn``, no input or output.

The conventions of the whole project stand here, once:

- Boxes are ``xyxy``, absolute pixels of the *resized* image, continuous (a box of one pixel is 1 wide; no +1).
- Labels are ``0..K-1`` and never a background; a background logit is private to the head that wants one.
- Padding is at the bottom and right.
- A semantic map is int64 ``h w``; 255 is ignored.
- Values are checked at construction; where a tensor has to be read for it, on the CPU alone. What needs the size of an
  image or the number of classes is checked by :func:`check_targets`, which heads call in their losses.
- Pyramid levels are named fine to coarse, ``c2..c5`` out of a backbone and ``p2..p7`` out of a neck: names, not
  indices, since dilation lets two levels share a stride.
"""

from .classes import Classes
from .classification import Classification
from .config import (
    Config,
    PartConfig,
    revalidate,
    suggest,
    usage_error_from_validation,
    value_errors_as_usage_errors,
)
from .detections import Detections
from .device import DeviceLike, pick_device
from .errors import (
    CheckpointError,
    DataError,
    MemoryFullError,
    NonFiniteError,
    PeerError,
    UsageError,
    VertebraError,
    WorkerError,
    is_out_of_memory,
)
from .features import FeatureInfo, Features, Level, Levels
from .field_table import FieldTable, require_one_per_box
from .images import MAX_PIXELS, Images
from .input import CAFFE_INPUT, InputConfig
from .instances import FieldCheck, Instances, TensorGroup, declare_instance_field
from .masks import MaskFormat, PasteRule, RoIMasks
from .numbers import is_number
from .polygons import PolygonMasks
from .preprocessing import ImagePreprocessing, ResizedCenterCrop, ShortSideResize
from .registry import Registry, RegistryEntry
from .semantic import IGNORE, LogitWindow, SemanticLogits
from .targets import check_targets, require_labels_below

__all__ = [
    "CAFFE_INPUT",
    "IGNORE",
    "MAX_PIXELS",
    "CheckpointError",
    "Classes",
    "Classification",
    "Config",
    "DataError",
    "Detections",
    "DeviceLike",
    "FeatureInfo",
    "Features",
    "FieldCheck",
    "FieldTable",
    "ImagePreprocessing",
    "Images",
    "InputConfig",
    "Instances",
    "Level",
    "Levels",
    "LogitWindow",
    "MaskFormat",
    "MemoryFullError",
    "NonFiniteError",
    "PartConfig",
    "PasteRule",
    "PeerError",
    "PolygonMasks",
    "Registry",
    "RegistryEntry",
    "ResizedCenterCrop",
    "RoIMasks",
    "SemanticLogits",
    "ShortSideResize",
    "TensorGroup",
    "UsageError",
    "VertebraError",
    "WorkerError",
    "check_targets",
    "declare_instance_field",
    "is_number",
    "is_out_of_memory",
    "pick_device",
    "require_labels_below",
    "require_one_per_box",
    "revalidate",
    "suggest",
    "usage_error_from_validation",
    "value_errors_as_usage_errors",
]
