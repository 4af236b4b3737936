"""The tensor names of detectron2's detectors and segmentation models, and of its ImageNet backbones.

detectron2's names follow from the options of a model, so the table for a model is put together from its config.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...heads import HeadConfig, PanopticFPNConfig, RCNNConfig, RetinaNetConfig, RetinaNetHead, SemanticFPNConfig
from ...necks import FPNConfig
from ..build import ModelConfig
from .key_map import Change, KeyMap, Rule


def _move_first_row_last(tensor: Tensor) -> Tensor:
    return tensor.roll(-1, dims=0)


def _move_last_row_first(tensor: Tensor) -> Tensor:
    return tensor.roll(1, dims=0)


_THINGS_LAST = Change(to_vertebra=_move_first_row_last, from_vertebra=_move_last_row_first)
"""The semantic class that stands for all things is detectron2's first and Vertebra's last."""

_COMPUTED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.", "anchor_generator.")
"""Prefixes of constants that files of 2019 and 2020 hold: the pixel normalization and the anchors."""


def key_map(model: ModelConfig) -> KeyMap:
    """Return the table of tensor names for a model; raise ValueError if detectron2 has no model with such parts."""
    head = model.head
    if isinstance(head, RetinaNetConfig):
        extra = {"head.positives_per_image": torch.tensor(RetinaNetHead.INITIAL_POSITIVES, device="cpu")}
        extra = extra if head.normalizer == "average" else {}
        rules = (*_pyramid(model), *_retinanet(head))
        return KeyMap("detectron2's RetinaNet", rules, ignored=_COMPUTED, added=extra)
    rules = (*_pyramid(model), *_head(head))
    return KeyMap(f"detectron2's {_NAMES[head.name]}", rules, ignored=_COMPUTED)


_NAMES = {"rcnn": "R-CNN", "panoptic_fpn": "Panoptic FPN", "semantic_fpn": "Semantic FPN"}


def _head(head: HeadConfig) -> Iterator[Rule]:
    """Yield the rules of a head with region proposals or a class map."""
    if isinstance(head, RCNNConfig):
        yield from _rcnn(head, "head.")
    elif isinstance(head, PanopticFPNConfig):
        yield from _rcnn(head.instances, "head.instances.")
        yield from _semantic("head.semantic.")
    elif isinstance(head, SemanticFPNConfig):
        yield from _semantic("head.")
    else:
        raise ValueError(f"detectron2 has no counterpart of the head {head.name!r}")


def resnet_rules(vertebra: str, other: str) -> Iterator[Rule]:
    """Yield the rules of a ResNet, given the prefixes of its tensor names in both libraries."""
    block, other_block = f"{vertebra}layer{{i}}.{{j}}.", f"{other}res{{i+1}}.{{j}}."
    yield Rule(f"{vertebra}bn1.", f"{other}stem.conv1.norm.")
    yield Rule(f"{vertebra}conv1.", f"{other}stem.conv1.")
    yield Rule(f"{block}bn{{k}}.", f"{other_block}conv{{k}}.norm.")
    yield Rule(f"{block}conv{{k}}.offset.", f"{other_block}conv{{k}}_offset.")
    yield Rule(f"{block}conv{{k}}.", f"{other_block}conv{{k}}.")
    yield Rule(f"{block}downsample.1.", f"{other_block}shortcut.norm.")
    yield Rule(f"{block}downsample.0.", f"{other_block}shortcut.")


def _pyramid(model: ModelConfig) -> Iterator[Rule]:
    """Yield the rules of the backbone and the neck."""
    neck = model.neck
    if not isinstance(neck, FPNConfig):
        yield from resnet_rules("backbone.", "backbone.")
        return
    yield from resnet_rules("backbone.", "backbone.bottom_up.")
    lateral, output = "neck.lateral.c{i}.", "neck.output.p{i}."
    if neck.norm == "none":
        yield Rule(lateral, "backbone.fpn_lateral{i}.")
        yield Rule(output, "backbone.fpn_output{i}.")
    else:
        yield Rule(f"{lateral}1.", "backbone.fpn_lateral{i}.norm.")
        yield Rule(f"{lateral}0.", "backbone.fpn_lateral{i}.")
        yield Rule(f"{output}1.", "backbone.fpn_output{i}.norm.")
        yield Rule(f"{output}0.", "backbone.fpn_output{i}.")
    yield Rule("neck.extra.first.", "backbone.top_block.p6.")
    yield Rule("neck.extra.second.", "backbone.top_block.p7.")


def _rcnn(head: RCNNConfig, prefix: str) -> Iterator[Rule]:
    """Yield the rules of an R-CNN head."""
    # A single convolution has no index in detectron2.
    first, later = (
        ("convolutions.0.", "conv.") if head.rpn.convolutions == 1 else ("convolutions.{i}.", "conv.conv{i}.")
    )
    yield Rule(f"{prefix}rpn.{first}", f"proposal_generator.rpn_head.{later}")
    yield Rule(f"{prefix}rpn.objectness.", "proposal_generator.rpn_head.objectness_logits.")
    yield Rule(f"{prefix}rpn.offsets.", "proposal_generator.rpn_head.anchor_deltas.")
    if head.cascade:
        yield from _box(f"{prefix}box.", "0.")
        yield from _box(f"{prefix}cascade.{{s}}.", "{s+1}.")
    else:
        yield from _box(f"{prefix}box.", "")
    yield from _convolutions(f"{prefix}mask.", "roi_heads.mask_head.mask_fcn")
    yield Rule(f"{prefix}mask.deconvolution.", "roi_heads.mask_head.deconv.")
    yield Rule(f"{prefix}mask.logits.", "roi_heads.mask_head.predictor.")
    yield from _convolutions(f"{prefix}keypoint.", "roi_heads.keypoint_head.conv_fcn")
    yield Rule(f"{prefix}keypoint.heatmaps.", "roi_heads.keypoint_head.score_lowres.")


def _box(branch: str, stage: str) -> Iterator[Rule]:
    """Yield the rules of a box branch; ``stage`` is the index of its stage in a cascade, or empty."""
    yield Rule(f"{branch}fc.{{i}}.", f"roi_heads.box_head.{stage}fc{{i+1}}.")
    yield from _convolutions(branch, f"roi_heads.box_head.{stage}conv")
    yield Rule(f"{branch}class_logits.", f"roi_heads.box_predictor.{stage}cls_score.")
    yield Rule(f"{branch}box_offsets.", f"roi_heads.box_predictor.{stage}bbox_pred.")


def _convolutions(branch: str, other: str) -> Iterator[Rule]:
    """Yield the rules of the 3x3 convolutions of a branch, with or without norms."""
    yield Rule(f"{branch}convolutions.{{i}}.1.", f"{other}{{i+1}}.norm.")
    yield Rule(f"{branch}convolutions.{{i}}.0.", f"{other}{{i+1}}.")


def _semantic(prefix: str) -> Iterator[Rule]:
    """Yield the rules of a Semantic FPN, whose convolutions alternate with resizes in detectron2."""
    yield Rule(f"{prefix}scale_heads.p{{l}}.stages.{{i}}.1.", "sem_seg_head.p{l}.{2i}.norm.")
    yield Rule(f"{prefix}scale_heads.p{{l}}.stages.{{i}}.0.", "sem_seg_head.p{l}.{2i}.")
    yield Rule(f"{prefix}logits.", "sem_seg_head.predictor.", _THINGS_LAST)


def _retinanet(head: RetinaNetConfig) -> Iterator[Rule]:
    """Yield the rules of a RetinaNet, whose towers are sequences of convolutions, norms and activations."""
    for tower, other in (("class_tower", "cls_subnet"), ("box_tower", "bbox_subnet")):
        if head.norm == "none":
            yield Rule(f"head.{tower}.{{i}}.0.", f"head.{other}.{{2i}}.")
        else:
            yield Rule(f"head.{tower}.{{i}}.0.", f"head.{other}.{{3i}}.")
            yield Rule(f"head.{tower}.{{i}}.1.", f"head.{other}.{{3i+1}}.")
    yield Rule("head.class_logits.", "head.cls_score.")
    yield Rule("head.box_offsets.", "head.bbox_pred.")
