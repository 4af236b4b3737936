"""The residual blocks: two 3x3 convolutions, or a 3x3 between two 1x1, beside a shortcut."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .attention import ATTENTIONS
from .layers import Layers
from .shortcuts import PaddedIdentity, average_projection, projection
from .variants import ResNetSpec


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Where a block stands: what it reads, how wide it is, how it samples and how often it is left out."""

    in_channels: int
    planes: int  # output channels / expansion
    stride: int = 1
    stride_in_1x1: bool = False  # a bottleneck strides in its first convolution, as Caffe's
    first_dilation: int = 1  # of the 3x3 convolution that carries the stride
    dilation: int = 1  # of those after it
    drop_path: float = 0.0  # probability that an image skips the convolutions in training (1603.09382)


class BasicBlock(nn.Module):
    """1512.03385 Figure 5, left. What may be deformable is the second convolution."""

    expansion = 1

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, layers: Layers) -> None:
        super().__init__()
        planes = plan.planes
        self.conv1 = layers.convolution(plan.in_channels, planes, 3, plan.stride, plan.first_dilation)
        self.bn1 = layers.norm(planes)
        self.conv2 = layers.spatial(planes, 1, plan.dilation)
        self.bn2 = layers.norm(planes)
        self.se = ATTENTIONS[spec.attention](planes)
        self.downsample = shortcut(plan, planes, spec, layers)
        self.drop_path = _drop_path(plan)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.drop_path(self.se(self.bn2(self.conv2(residual))))
        if self.downsample is not None:
            residual += self.downsample(x)
        return self.relu(residual)


class Bottleneck(nn.Module):
    """1512.03385 Figure 5, right; the 3x3 carries the groups (1611.05431) and, but for Caffe's, the stride."""

    expansion = 4

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, layers: Layers) -> None:
        super().__init__()
        width = plan.planes * spec.width_per_group // 64 * spec.groups
        out_channels = plan.planes * self.expansion
        first_stride, stride = (plan.stride, 1) if plan.stride_in_1x1 else (1, plan.stride)
        self.conv1 = layers.convolution(plan.in_channels, width, 1, first_stride)
        self.bn1 = layers.norm(width)
        self.conv2 = layers.spatial(width, stride, plan.first_dilation, spec.groups)
        self.bn2 = layers.norm(width)
        self.conv3 = layers.convolution(width, out_channels, 1)
        self.bn3 = layers.norm(out_channels)
        self.se = ATTENTIONS[spec.attention](out_channels)
        self.downsample = shortcut(plan, out_channels, spec, layers)
        self.drop_path = _drop_path(plan)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.drop_path(self.se(self.bn3(self.conv3(residual))))
        if self.downsample is not None:
            residual += self.downsample(x)
        return self.relu(residual)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


def shortcut(plan: BlockPlan, out_channels: int, spec: ResNetSpec, layers: Layers) -> nn.Module | None:
    """The block's shortcut: the identity wherever the shape does not change, nothing in a plain network."""
    if spec.shortcut == "none":
        return None
    if plan.stride == 1 and plan.in_channels == out_channels:
        return nn.Identity()
    match spec.shortcut:
        case "projection":
            return projection(plan.in_channels, out_channels, plan.stride, layers)
        case "average":
            return average_projection(plan.in_channels, out_channels, plan.stride, plan.dilation, layers)
        case "pad":
            return PaddedIdentity(plan.in_channels, out_channels, plan.stride)


def _drop_path(plan: BlockPlan) -> nn.Module:
    return StochasticDepth(plan.drop_path, "row") if plan.drop_path else nn.Identity()
