"""The tensor names of torchvision's detectors and segmentation models."""

import torch
from torch import Tensor

from .key_map import Change, KeyMap, Rule

_FIRST_ROW_IS_BACKGROUND = Change(
    to_vertebra=lambda tensor: tensor[1:],
    from_vertebra=lambda tensor: torch.cat([torch.zeros_like(tensor[:1]), tensor]),
)
"""torchvision predicts a mask for the background too, which it never reads. Going back, its weights are zero."""


def _by_size(tensor: Tensor) -> Tensor:
    """Sort the rows of a cell's nine anchors by size instead of by ratio (torchvision's order), or the other way."""
    return tensor.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)


_ANCHOR_ORDER = Change(to_vertebra=_by_size, from_vertebra=_by_size)  # transposing three by three is its own inverse

_PLAIN_FPN = (
    Rule("neck.lateral.c{i+2}.", "backbone.fpn.inner_blocks.{i}.0."),
    Rule("neck.output.p{i+2}.", "backbone.fpn.layer_blocks.{i}.0."),
)
_NORMED_FPN = (
    Rule("neck.lateral.c{i+2}.", "backbone.fpn.inner_blocks.{i}."),
    Rule("neck.output.p{i+2}.", "backbone.fpn.layer_blocks.{i}."),
)
_RCNN = (
    Rule("backbone.", "backbone.body."),
    Rule("head.rpn.convolutions.{i}.", "rpn.head.conv.{i}.0."),
    Rule("head.rpn.objectness.", "rpn.head.cls_logits."),
    Rule("head.rpn.offsets.", "rpn.head.bbox_pred."),
    Rule("head.box.class_logits.", "roi_heads.box_predictor.cls_score."),
    Rule("head.box.box_offsets.", "roi_heads.box_predictor.bbox_pred."),
    Rule("head.mask.convolutions.", "roi_heads.mask_head."),
    Rule("head.mask.deconvolution.", "roi_heads.mask_predictor.conv5_mask."),
    Rule("head.mask.logits.", "roi_heads.mask_predictor.mask_fcn_logits.", _FIRST_ROW_IS_BACKGROUND),
    # torchvision's keypoint head is one sequence of alternating convolutions and activations.
    Rule("head.keypoint.convolutions.{i}.0.", "roi_heads.keypoint_head.{2i}."),
    Rule("head.keypoint.heatmaps.", "roi_heads.keypoint_predictor.kps_score_lowres."),
)
_FORMER_FPN = tuple(
    (f"backbone.fpn.{blocks}.{{i}}.{kind}", f"backbone.fpn.{blocks}.{{i}}.0.{kind}")
    for blocks in ("inner_blocks", "layer_blocks")
    for kind in ("weight", "bias")
)
"""Names before torchvision 0.13, which its published COCO_V1 files have."""

RCNN = KeyMap(
    "torchvision's Faster, Mask or Keypoint R-CNN",
    (*_PLAIN_FPN, *_RCNN, Rule("head.box.fc.{i}.", "roi_heads.box_head.fc{i+6}.")),
    former=(
        *_FORMER_FPN,
        ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("rpn.head.conv.bias", "rpn.head.conv.0.0.bias"),
        ("roi_heads.mask_head.mask_fcn{i+1}.", "roi_heads.mask_head.{i}.0."),
    ),
)
"""``fasterrcnn_resnet*_fpn``, ``maskrcnn_resnet*_fpn`` and ``keypointrcnn_resnet*_fpn``."""

RCNN_V2 = KeyMap(
    "torchvision's Faster or Mask R-CNN v2",
    (
        *_NORMED_FPN,
        *_RCNN,
        Rule("head.box.fc.0.", "roi_heads.box_head.5."),
        Rule("head.box.convolutions.", "roi_heads.box_head."),
    ),
)
"""``fasterrcnn_resnet50_fpn_v2`` and ``maskrcnn_resnet50_fpn_v2``, with norms in the neck and the box branch."""

_DENSE = (
    Rule("backbone.", "backbone.body."),
    Rule("neck.lateral.c{i+3}.", "backbone.fpn.inner_blocks.{i}.0."),
    Rule("neck.output.p{i+3}.", "backbone.fpn.layer_blocks.{i}.0."),
    Rule("neck.extra.first.", "backbone.fpn.extra_blocks.p6."),
    Rule("neck.extra.second.", "backbone.fpn.extra_blocks.p7."),
)
RETINANET = KeyMap(
    "torchvision's RetinaNet",
    (
        *_DENSE,
        Rule("head.class_logits.", "head.classification_head.cls_logits.", _ANCHOR_ORDER),
        Rule("head.class_tower.", "head.classification_head.conv."),
        Rule("head.box_offsets.", "head.regression_head.bbox_reg.", _ANCHOR_ORDER),
        Rule("head.box_tower.", "head.regression_head.conv."),
    ),
    former=(
        *_FORMER_FPN,
        *(
            (f"head.{head}.conv.{{2i}}.{kind}", f"head.{head}.conv.{{i}}.0.{kind}")
            for head in ("classification_head", "regression_head")
            for kind in ("weight", "bias")
        ),
    ),
)
"""``retinanet_resnet50_fpn`` and ``retinanet_resnet50_fpn_v2``."""

FCOS = KeyMap(
    "torchvision's FCOS",
    (
        *_DENSE,
        Rule("head.class_logits.", "head.classification_head.cls_logits."),
        # torchvision's towers are one sequence of convolutions, norms and activations.
        Rule("head.class_tower.{i}.0.", "head.classification_head.conv.{3i}."),
        Rule("head.class_tower.{i}.1.", "head.classification_head.conv.{3i+1}."),
        Rule("head.box_tower.{i}.0.", "head.regression_head.conv.{3i}."),
        Rule("head.box_tower.{i}.1.", "head.regression_head.conv.{3i+1}."),
        Rule("head.box_distances.", "head.regression_head.bbox_reg."),
        Rule("head.quality.", "head.regression_head.bbox_ctrness."),
    ),
    former=_FORMER_FPN,
)
"""``fcos_resnet50_fpn``."""

_BACKBONE_AND_AUXILIARY = (
    Rule("backbone.", "backbone."),
    Rule("head.auxiliary.logits.", "aux_classifier.4."),
    Rule("head.auxiliary.convolution.", "aux_classifier."),
)
DEEPLAB = KeyMap(
    "torchvision's DeepLabv3",
    (
        *_BACKBONE_AND_AUXILIARY,
        Rule("head.aspp.pooling.convolution.", "classifier.0.convs.4.1."),
        Rule("head.aspp.pooling.norm.", "classifier.0.convs.4.2."),
        Rule("head.aspp.branches.", "classifier.0.convs."),
        Rule("head.aspp.project.", "classifier.0.project."),
        Rule("head.logits.", "classifier.4."),
        Rule("head.decoder.0.{i}.", "classifier.{i+1}."),
    ),
)
"""``deeplabv3_resnet*``, with or without an auxiliary classifier."""

FCN = KeyMap(
    "torchvision's FCN",
    (
        *_BACKBONE_AND_AUXILIARY,
        Rule("head.classifier.logits.", "classifier.4."),
        Rule("head.classifier.convolution.", "classifier."),
    ),
)
"""``fcn_resnet*``, with or without an auxiliary classifier."""
