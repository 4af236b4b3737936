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
from .conv_block import ActivationKind, activation_layer, conv_block, separable_conv_block
from .distributed import (
    all_reduce_mean,
    draw_image_seeds,
    get_rank,
    get_world_size,
    shared_generator,
    single_process,
    uniform_from_seed,
)
from .matching import IGNORED, NEGATIVE, POSITIVE, Match, Sample, ignore_regions, match_boxes, sample_labels
from .nms import class_nms_mask, nms_mask
from .norms import ChannelLayerNorm, FrozenBatchNorm2d, NormKind, NormLayer, norm_layer
from .paste import paste_masks
from .polygons import rasterize_polygon_masks
from .pooling import masked_mean
from .roi_align import RoIAlignConfig, pool_regions, region_levels
from .semantic import label_map, pad_maps
from .state_dict import join_first, state_dict_problems
from .sync_norm import SyncBatchNorm
from .watch import Notes, collect_metrics, is_collecting_metrics, metric_prefix, note

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "POSITIVE",
    "ActivationKind",
    "ChannelLayerNorm",
    "FrozenBatchNorm2d",
    "Match",
    "NormKind",
    "NormLayer",
    "Notes",
    "RoIAlignConfig",
    "Sample",
    "SyncBatchNorm",
    "activation_layer",
    "all_reduce_mean",
    "box_areas",
    "cell_anchors",
    "class_nms_mask",
    "clip_boxes",
    "collect_metrics",
    "conv_block",
    "decode_boxes",
    "draw_image_seeds",
    "encode_boxes",
    "get_rank",
    "get_world_size",
    "grid_anchors",
    "ignore_regions",
    "is_collecting_metrics",
    "join_first",
    "label_map",
    "masked_mean",
    "match_boxes",
    "metric_prefix",
    "nms_mask",
    "norm_layer",
    "note",
    "pad_maps",
    "pairwise_intersection",
    "pairwise_iou",
    "paste_masks",
    "pool_regions",
    "rasterize_polygon_masks",
    "region_levels",
    "sample_labels",
    "separable_conv_block",
    "shared_generator",
    "single_process",
    "state_dict_problems",
    "uniform_from_seed",
]
