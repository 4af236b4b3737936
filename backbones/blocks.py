"""The building blocks of residual networks: stems, basic and bottleneck blocks, and shortcuts."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .attention import ATTENTIONS
from .layers import Layers
from .variants import ResNetSpec


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Settings of one residual block that depend on its position in the network."""

    in_channels: int
    planes: int  # output channels / expansion of the block
    stride: int = 1
    stride_in_1x1: bool = False  # the stride of a bottleneck is in its first 1x1 convolution, as in Caffe's ResNets
    first_dilation: int = 1  # dilation of the 3x3 convolution that has the stride
    dilation: int = 1  # dilation of later convolutions
    drop_path: float = 0.0  # probability of skipping the residual branch of an image in training (1603.09382)


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions (1512.03385 Figure 5, left); the second may be deformable."""

    expansion = 1

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, layers: Layers) -> None:
        super().__init__()
        planes = plan.planes
        self.conv1 = layers.convolution(plan.in_channels, planes, 3, plan.stride, plan.first_dilation)
        self.bn1 = layers.norm(planes)
        self.conv2 = layers.spatial_convolution(planes, 1, plan.dilation)
        self.bn2 = layers.norm(planes)
        self.se = ATTENTIONS[spec.attention](planes)
        self.downsample = make_shortcut(plan, planes, spec, layers)
        self.drop_path = _make_drop_path(plan)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.drop_path(self.se(self.bn2(self.conv2(residual))))
        if self.downsample is not None:
            residual += self.downsample(x)
        return self.relu(residual)


class Bottleneck(nn.Module):
    """A residual block of a 1x1, a 3x3 and a 1x1 convolution (1512.03385 Figure 5, right).

    The 3x3 convolution has ``spec.groups`` groups (ResNeXt, 1611.05431), may be deformable, and has the stride unless
    ``plan.stride_in_1x1`` is set.
    """

    expansion = 4

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, layers: Layers) -> None:
        super().__init__()
        width = plan.planes * spec.width_per_group // 64 * spec.groups
        out_channels = plan.planes * self.expansion
        first_stride, stride = (plan.stride, 1) if plan.stride_in_1x1 else (1, plan.stride)
        self.conv1 = layers.convolution(plan.in_channels, width, 1, first_stride)
        self.bn1 = layers.norm(width)
        self.conv2 = layers.spatial_convolution(width, stride, plan.first_dilation, spec.groups)
        self.bn2 = layers.norm(width)
        self.conv3 = layers.convolution(width, out_channels, 1)
        self.bn3 = layers.norm(out_channels)
        self.se = ATTENTIONS[spec.attention](out_channels)
        self.downsample = make_shortcut(plan, out_channels, spec, layers)
        self.drop_path = _make_drop_path(plan)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.drop_path(self.se(self.bn3(self.conv3(residual))))
        if self.downsample is not None:
            residual += self.downsample(x)
        return self.relu(residual)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _make_drop_path(plan: BlockPlan) -> nn.Module:
    return StochasticDepth(plan.drop_path, "row") if plan.drop_path else nn.Identity()


def make_shortcut(plan: BlockPlan, out_channels: int, spec: ResNetSpec, layers: Layers) -> nn.Module | None:
    """Build the shortcut of a block: the identity if the block keeps the shape, None in a network without shortcuts."""
    if spec.shortcut == "none":
        return None
    if plan.stride == 1 and plan.in_channels == out_channels:
        return nn.Identity()
    match spec.shortcut:
        case "projection":
            return _make_projection(plan.in_channels, out_channels, plan.stride, layers)
        case "average":
            return _make_average_projection(plan, out_channels, layers)
        case "pad":
            return PaddedIdentity(plan.in_channels, out_channels, plan.stride)


def _make_projection(in_channels: int, out_channels: int, stride: int, layers: Layers) -> nn.Sequential:
    """Build a projection shortcut: a strided 1x1 convolution and a norm (1512.03385 section 3.3, option B)."""
    return nn.Sequential(layers.convolution(in_channels, out_channels, 1, stride), layers.norm(out_channels))


def _make_average_projection(plan: BlockPlan, out_channels: int, layers: Layers) -> nn.Sequential:
    """Build the shortcut of ResNet-D: 2x2 average pooling, then a 1x1 convolution (1812.01187 Figure 2c).

    In a dilated stage the pooling has stride 1 and zero padding at the right and bottom. Padding is as in timm.
    """
    pool: nn.Module = nn.Identity()
    if plan.stride > 1:
        pool = nn.AvgPool2d(2, plan.stride, ceil_mode=True)
    elif plan.dilation > 1:
        pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1))
    return nn.Sequential(pool, *_make_projection(plan.in_channels, out_channels, 1, layers))


class PaddedIdentity(nn.Module):
    """A shortcut without parameters (1512.03385 section 3.3, option A).

    It takes every ``stride``-th cell, and pads the channels with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, out_channels - in_channels

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def make_stem(in_channels: int, spec: ResNetSpec, layers: Layers) -> nn.Conv2d | nn.Sequential:
    """Build the convolutions before the first stage, without the norm after the last of them.

    These are a 7x7 convolution of stride 2 (1512.03385), several 3x3 convolutions (1812.01187 section 4.2) or, for
    small images, a 3x3 convolution of stride 1. The indices in the ``Sequential`` are timm's, so that its weights load.
    """
    first, stride = spec.stem[0], 1 if spec.stem_stride == 1 else 2
    if len(spec.stem) == 1:
        return layers.convolution(in_channels, first, 3 if stride == 1 else 7, stride)
    stem: list[nn.Module] = [layers.convolution(in_channels, first, 3, stride)]
    for channels, next_channels in pairwise(spec.stem):
        stem += [layers.norm(channels), nn.ReLU(inplace=True), layers.convolution(channels, next_channels, 3)]
    return nn.Sequential(*stem)


def make_stem_pool(spec: ResNetSpec) -> nn.Module:
    """Build the max pooling after the stem, or an identity in a network for small images."""
    return nn.Identity() if spec.stem_stride == 1 else nn.MaxPool2d(3, stride=2, padding=1)
