"""The types of the fields of annotated objects (boxes, masks, ...), one file for each type."""

import numpy as np

from .base import OBJECT_FIELDS, Carried, Coverable, MaskField, ObjectField, Window, declare_object_field
from .boxes import BoxField, RegionField
from .constants import ConstantField
from .keypoints import KeypointField, Keypoints
from .masks import BitmapField, resize_bitmaps, resize_nearest
from .polygon_masks import PolygonField

# `Instances` declares these six itself; other fields are declared with `declare_object_field`.
OBJECT_FIELDS.update(
    boxes=BoxField(),
    labels=ConstantField("label", np.int64),
    ignored=RegionField(),
    masks=BitmapField(),
    polygon_masks=PolygonField(),
    keypoints=KeypointField(),
)

__all__ = [
    "OBJECT_FIELDS",
    "BitmapField",
    "BoxField",
    "Carried",
    "ConstantField",
    "Coverable",
    "KeypointField",
    "Keypoints",
    "MaskField",
    "ObjectField",
    "PolygonField",
    "RegionField",
    "Window",
    "declare_object_field",
    "resize_bitmaps",
    "resize_nearest",
]
