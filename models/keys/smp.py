"""The tensor names of segmentation_models.pytorch (SMP) with ResNet encoders."""

import torch
from torch import Tensor

from .key_map import Change, KeyMap, Rule


def _background_and_object(tensor: Tensor) -> Tensor:
    """Return the rows of the logits of two classes for the row of a single one, which is a logit against zero."""
    return torch.cat([torch.zeros_like(tensor), tensor]) if len(tensor) == 1 else tensor


def _single_logit(tensor: Tensor) -> Tensor:
    """Undo :func:`_background_and_object`: drop the first of two rows if it is zero."""
    return tensor[1:] if len(tensor) == 2 and not tensor[0].any() else tensor


_ENCODER = Rule("backbone.", "encoder.")
_LOGITS = Rule("head.logits.", "segmentation_head.0.", Change(_background_and_object, _single_logit))


def _aspp(other: str) -> tuple[Rule, ...]:
    """Return the rules of an ASPP, except its dilated convolutions."""
    return (
        Rule("head.aspp.pooling.convolution.", f"{other}convs.4.1."),
        Rule("head.aspp.pooling.norm.", f"{other}convs.4.2."),
        Rule("head.aspp.project.", f"{other}project."),
        Rule("head.aspp.branches.0.", f"{other}convs.0."),
    )


def _separable(vertebra: str, other: str) -> tuple[Rule, ...]:
    """Return the rules of a separable convolution, which has a norm after its second convolution only."""
    return (
        Rule(f"{vertebra}0.", f"{other}0.0."),
        Rule(f"{vertebra}1.0.", f"{other}0.1."),
        Rule(f"{vertebra}1.1.", f"{other}1."),
    )


DEEPLAB = KeyMap(
    "SMP's DeepLabV3",
    (
        _ENCODER,
        *_aspp("decoder.aspp."),
        Rule("head.aspp.branches.", "decoder.aspp.convs."),
        Rule("head.decoder.0.0.", "decoder.conv."),
        Rule("head.decoder.0.1.", "decoder.bn."),
        _LOGITS,
    ),
    former=(("decoder.0.", "decoder.aspp."), ("decoder.1.", "decoder.conv."), ("decoder.2.", "decoder.bn.")),
)
"""``DeepLabV3``; the former names are those of the versions before 0.4."""

DEEPLAB_PLUS = KeyMap(
    "SMP's DeepLabV3Plus",
    (
        _ENCODER,
        *_aspp("decoder.aspp.0."),
        *_separable("head.aspp.branches.{i+1}.", "decoder.aspp.0.convs.{i+1}."),
        Rule("head.aspp_convolution.0.", "decoder.aspp.1.0."),
        Rule("head.aspp_convolution.1.0.", "decoder.aspp.1.1."),
        Rule("head.aspp_convolution.1.1.", "decoder.aspp.2."),
        Rule("head.low_level.", "decoder.block1."),
        *_separable("head.decoder.0.", "decoder.block2."),
        _LOGITS,
    ),
)
"""``DeepLabV3Plus``."""

UNET = KeyMap(
    "SMP's Unet",
    (
        _ENCODER,
        Rule("head.steps.{i}.convolutions.0.", "decoder.blocks.{i}.conv1."),
        Rule("head.steps.{i}.convolutions.1.", "decoder.blocks.{i}.conv2."),
        _LOGITS,
    ),
)
"""``Unet``."""

FPN = KeyMap(
    "SMP's FPN",
    (
        _ENCODER,
        Rule("neck.lateral.c5.", "decoder.p5."),
        Rule("neck.lateral.c{i}.", "decoder.p{i}.skip_conv."),
        *(
            Rule(f"head.scale_heads.p{level}.stages.{{i}}.", f"decoder.seg_blocks.{5 - level}.block.{{i}}.block.")
            for level in (2, 3, 4, 5)
        ),
        _LOGITS,
    ),
)
"""``FPN``."""
