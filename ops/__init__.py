"""Layer 1: functions on tensors, and layers that all higher layers use.

A dense head is built from four of these files: ``anchors`` (its references), ``assign`` (the target of each reference),
``boxes`` (encoding and decoding) and ``select`` (from scores to detections).
"""

from .anchors import (
    PyramidAnchors,
    StrideRule,
    cell_anchors,
    flatten_cells,
    grid_anchors,
    grid_points,
    grid_stride,
)
from .assign import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Match,
    Sample,
    assign_boxes,
    ignore_regions,
    match_boxes,
    match_by_statistics,
    match_points,
    sample_labels,
    take_targets,
)
from .boxes import (
    box_areas,
    clip_boxes,
    decode_boxes,
    decode_distances,
    encode_boxes,
    encode_distances,
    paired_iou,
    pairwise_intersection,
    pairwise_iou,
    shorter_sides,
)
from .conv_block import ActivationKind, activation_layer, conv_block, separable_conv_block
from .distributed import (
    all_reduce_mean,
    all_reduce_sum,
    draw_image_seeds,
    get_rank,
    get_world_size,
    shared_generator,
    single_process,
    uniform_from_seed,
)
from .gradients import scale_gradient
from .keypoints import DecodingRule, decode_keypoints, encode_keypoints, heatmap_scores
from .losses import split_losses, total_loss
from .norms import ChannelLayerNorm, FrozenBatchNorm2d, NormKind, NormLayer, norm_layer
from .paste import paste_masks, paste_masks_in_chunks
from .polygons import rasterize_polygon_masks
from .pooling import masked_mean
from .roi_align import RoIAlignConfig, pool_regions, region_levels
from .select import (
    NO_CANDIDATE,
    PaddedDetections,
    class_nms_mask,
    gather_rows,
    nms_mask,
    select_detections,
    suppress,
    top_class_scores,
    top_scores,
)
from .semantic import class_logits, full_size_logits, label_map, pad_maps, resize_maps
from .state_dict import join_first, state_dict_problems
from .sync_norm import SyncBatchNorm

__all__ = [
    "IGNORED",
    "NEGATIVE",
    "NO_CANDIDATE",
    "POSITIVE",
    "ActivationKind",
    "ChannelLayerNorm",
    "DecodingRule",
    "FrozenBatchNorm2d",
    "Match",
    "NormKind",
    "NormLayer",
    "PaddedDetections",
    "PyramidAnchors",
    "RoIAlignConfig",
    "Sample",
    "StrideRule",
    "SyncBatchNorm",
    "activation_layer",
    "all_reduce_mean",
    "all_reduce_sum",
    "assign_boxes",
    "box_areas",
    "cell_anchors",
    "class_logits",
    "class_nms_mask",
    "clip_boxes",
    "conv_block",
    "decode_boxes",
    "decode_distances",
    "decode_keypoints",
    "draw_image_seeds",
    "encode_boxes",
    "encode_distances",
    "encode_keypoints",
    "flatten_cells",
    "full_size_logits",
    "gather_rows",
    "get_rank",
    "get_world_size",
    "grid_anchors",
    "grid_points",
    "grid_stride",
    "heatmap_scores",
    "ignore_regions",
    "join_first",
    "label_map",
    "masked_mean",
    "match_boxes",
    "match_by_statistics",
    "match_points",
    "nms_mask",
    "norm_layer",
    "pad_maps",
    "paired_iou",
    "pairwise_intersection",
    "pairwise_iou",
    "paste_masks",
    "paste_masks_in_chunks",
    "pool_regions",
    "rasterize_polygon_masks",
    "region_levels",
    "resize_maps",
    "sample_labels",
    "scale_gradient",
    "select_detections",
    "separable_conv_block",
    "shared_generator",
    "shorter_sides",
    "single_process",
    "split_losses",
    "state_dict_problems",
    "suppress",
    "take_targets",
    "top_class_scores",
    "top_scores",
    "total_loss",
    "uniform_from_seed",
]
