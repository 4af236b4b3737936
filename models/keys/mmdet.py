"""The tensor names of MMDetection's detectors, which are the same in its versions 2 and 3."""

from .key_map import KeyMap, Rule
from .torchvision import ANCHOR_ORDER

_BACKBONE = Rule("backbone.", "backbone.")
_RCNN = (
    _BACKBONE,
    Rule("neck.lateral.c{i+2}.", "neck.lateral_convs.{i}.conv."),
    Rule("neck.output.p{i+2}.", "neck.fpn_convs.{i}.conv."),
    Rule("head.rpn.convolutions.0.", "rpn_head.rpn_conv."),
    Rule("head.rpn.objectness.", "rpn_head.rpn_cls."),
    Rule("head.rpn.offsets.", "rpn_head.rpn_reg."),
    Rule("head.mask.convolutions.{i}.0.", "roi_head.mask_head.convs.{i}.conv."),
    Rule("head.mask.deconvolution.", "roi_head.mask_head.upsample."),
    Rule("head.mask.logits.", "roi_head.mask_head.conv_logits."),
)
_DENSE = (
    _BACKBONE,
    Rule("neck.lateral.c{i+3}.", "neck.lateral_convs.{i}.conv."),
    # The convolutions after the outputs p3, p4 and p5 make the extra levels.
    Rule("neck.extra.first.", "neck.fpn_convs.3.conv."),
    Rule("neck.extra.second.", "neck.fpn_convs.4.conv."),
    Rule("neck.output.p{i+3}.", "neck.fpn_convs.{i}.conv."),
    Rule("head.class_tower.{i}.0.", "bbox_head.cls_convs.{i}.conv."),
    Rule("head.class_tower.{i}.1.", "bbox_head.cls_convs.{i}.gn."),
    Rule("head.box_tower.{i}.0.", "bbox_head.reg_convs.{i}.conv."),
    Rule("head.box_tower.{i}.1.", "bbox_head.reg_convs.{i}.gn."),
)


def _box_branch(vertebra: str, other: str) -> tuple[Rule, ...]:
    """Return the rules of a box branch with two fully connected layers."""
    return (
        Rule(f"{vertebra}fc.{{j}}.", f"{other}shared_fcs.{{j}}."),
        Rule(f"{vertebra}class_logits.", f"{other}fc_cls."),
        Rule(f"{vertebra}box_offsets.", f"{other}fc_reg."),
    )


RCNN = KeyMap("MMDetection's Faster or Mask R-CNN", (*_RCNN, *_box_branch("head.box.", "roi_head.bbox_head.")))
"""``faster-rcnn_*_fpn`` and ``mask-rcnn_*_fpn``."""

CASCADE = KeyMap(
    "MMDetection's Cascade R-CNN",
    (
        *_RCNN,
        *_box_branch("head.box.", "roi_head.bbox_head.0."),
        *_box_branch("head.cascade.{i}.", "roi_head.bbox_head.{i+1}."),
    ),
)
"""``cascade-rcnn_*_fpn``."""

RETINANET = KeyMap(
    "MMDetection's RetinaNet",
    (
        *_DENSE,
        Rule("head.class_logits.", "bbox_head.retina_cls.", ANCHOR_ORDER),
        Rule("head.box_offsets.", "bbox_head.retina_reg.", ANCHOR_ORDER),
    ),
)
"""``retinanet_*_fpn``."""

FCOS = KeyMap(
    "MMDetection's FCOS",
    (
        *_DENSE,
        Rule("head.class_logits.", "bbox_head.conv_cls."),
        Rule("head.box_distances.", "bbox_head.conv_reg."),
        Rule("head.quality.", "bbox_head.conv_centerness."),
        Rule("head.scales.{i}", "bbox_head.scales.{i}.scale"),
    ),
    former=(
        ("bbox_head.fcos_cls.", "bbox_head.conv_cls."),
        ("bbox_head.fcos_reg.", "bbox_head.conv_reg."),
        ("bbox_head.fcos_centerness.", "bbox_head.conv_centerness."),
    ),
)
"""``fcos_*_gn-head``; the former names are those of MMDetection 1 and the first files of version 2."""
