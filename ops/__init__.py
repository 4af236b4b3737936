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
    draw_seeds,
    each_by_itself,
    mean_over_processes,
    process_count,
    process_rank,
    shared_draws,
    uniform_keys,
)
from .matching import IGNORED, NEGATIVE, POSITIVE, Match, Sample, ignore_regions, match_boxes, sample_labels
from .nms import class_nms_mask, nms_mask
from .norms import ChannelLayerNorm, FrozenBatchNorm2d, NormKind, NormLayer, norm_layer
from .paste import paste_masks
from .polygons import cut_outlines
from .pooling import mean_inside
from .roi_align import RoIAlignConfig, pool_regions, region_levels
from .run_lengths import run_lengths_fault, size_fault
from .segmentations import segmentation_fault
from .semantic import label_map, pad_maps
from .state_dict import first_few, state_dict_faults
from .sync_norm import SyncBatchNorm
from .watch import Notes, note, noted_under, watched, watching

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
    "box_areas",
    "cell_anchors",
    "class_nms_mask",
    "clip_boxes",
    "conv_block",
    "cut_outlines",
    "decode_boxes",
    "draw_seeds",
    "each_by_itself",
    "encode_boxes",
    "first_few",
    "grid_anchors",
    "ignore_regions",
    "label_map",
    "match_boxes",
    "mean_inside",
    "mean_over_processes",
    "nms_mask",
    "norm_layer",
    "note",
    "noted_under",
    "pad_maps",
    "pairwise_intersection",
    "pairwise_iou",
    "paste_masks",
    "pool_regions",
    "process_count",
    "process_rank",
    "region_levels",
    "run_lengths_fault",
    "sample_labels",
    "segmentation_fault",
    "separable_conv_block",
    "shared_draws",
    "size_fault",
    "state_dict_faults",
    "uniform_keys",
    "watched",
    "watching",
]
