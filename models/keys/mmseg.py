"""The tensor names of MMSegmentation's models with a ResNet-C."""

from torch import Tensor

from .key_map import Change, KeyMap, Rule

BRANCHES = 5
"""Branches of an ASPP: a 1x1 convolution, three dilated ones and image pooling."""


def _pooling_last(weight: Tensor) -> Tensor:
    """Move the inputs of the first branch to the end."""
    return weight.roll(-weight.shape[1] // BRANCHES, dims=1)


def _pooling_first(weight: Tensor) -> Tensor:
    """Move the inputs of the last branch to the beginning."""
    return weight.roll(weight.shape[1] // BRANCHES, dims=1)


def _block(vertebra: str, other: str) -> tuple[Rule, Rule]:
    """Return the rules of a convolution and its norm."""
    return Rule(f"{vertebra}0.", f"{other}conv."), Rule(f"{vertebra}1.", f"{other}bn.")


def _separable(vertebra: str, other: str) -> tuple[Rule, ...]:
    """Return the rules of a separable convolution."""
    return (
        *_block(f"{vertebra}0.", f"{other}depthwise_conv."),
        *_block(f"{vertebra}1.", f"{other}pointwise_conv."),
    )


_COMMON = (
    Rule("backbone.bn1.", "backbone.stem.7."),  # the norm after the last convolution of the stem
    Rule("backbone.conv1.", "backbone.stem."),
    Rule("backbone.", "backbone."),
    *_block("head.auxiliary.convolution.", "auxiliary_head.convs.0."),
    Rule("head.auxiliary.logits.", "auxiliary_head.conv_seg."),
)
_ASPP = (
    *_COMMON,
    Rule("head.aspp.pooling.convolution.", "decode_head.image_pool.1.conv."),
    Rule("head.aspp.pooling.norm.", "decode_head.image_pool.1.bn."),
    # MMSegmentation concatenates the features of the image pooling first, and Vertebra last.
    Rule("head.aspp.project.0.weight", "decode_head.bottleneck.conv.weight", Change(_pooling_last, _pooling_first)),
    *_block("head.aspp.project.", "decode_head.bottleneck."),
    Rule("head.logits.", "decode_head.conv_seg."),
)

DEEPLAB = KeyMap(
    "MMSegmentation's DeepLabv3", (*_ASPP, *_block("head.aspp.branches.{i}.", "decode_head.aspp_modules.{i}."))
)
"""``deeplabv3_*-d8``."""

DEEPLAB_PLUS = KeyMap(
    "MMSegmentation's DeepLabv3+",
    (
        *_ASPP,
        *_block("head.aspp.branches.0.", "decode_head.aspp_modules.0."),
        *_separable("head.aspp.branches.{i+1}.", "decode_head.aspp_modules.{i+1}."),
        *_block("head.low_level.", "decode_head.c1_bottleneck."),
        *_separable("head.decoder.{i}.", "decode_head.sep_bottleneck.{i}."),
    ),
)
"""``deeplabv3plus_*-d8``."""

FCN = KeyMap(
    "MMSegmentation's FCN",
    (
        *_COMMON,
        *_block("head.classifier.convolution.", "decode_head.convs.0."),
        *_block("head.classifier.further.{i}.", "decode_head.convs.{i+1}."),
        *_block("head.classifier.merge.", "decode_head.conv_cat."),
        Rule("head.classifier.logits.", "decode_head.conv_seg."),
    ),
)
"""``fcn_*-d8``."""
