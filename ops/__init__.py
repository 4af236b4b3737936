"""Floor 1: functions on boxes and feature maps, and the layers that every floor above uses."""

from .anchors import cell_anchors, grid_anchors
from .boxes import (
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_intersection,
    pairwise_iou,
)
from .matching import IGNORED, NEGATIVE, POSITIVE, Match, Sample, ignore_regions, match_boxes, sample_labels
from .nms import class_nms_mask, nms_mask
from .norms import ChannelLayerNorm, FrozenBatchNorm2d, NormKind, NormLayer, norm_layer
from .roi_align import RoIAlignConfig, pool_regions, region_levels

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "POSITIVE",
    "ChannelLayerNorm",
    "FrozenBatchNorm2d",
    "Match",
    "NormKind",
    "NormLayer",
    "RoIAlignConfig",
    "Sample",
    "box_areas",
    "cell_anchors",
    "class_nms_mask",
    "clip_boxes",
    "decode_boxes",
    "encode_boxes",
    "grid_anchors",
    "ignore_regions",
    "match_boxes",
    "nms_mask",
    "norm_layer",
    "pairwise_intersection",
    "pairwise_iou",
    "pool_regions",
    "region_levels",
    "sample_labels",
]
