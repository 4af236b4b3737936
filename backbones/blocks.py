"""The residual blocks: two 3x3 convolutions, or a 3x3 between two 1x1, beside a shortcut."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from ..ops import NormLayer
from .variants import ResNetSpec


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Where a block stands: what it reads, how wide it is and how it samples."""

    in_channels: int
    planes: int  # output channels / expansion
    stride: int
    first_dilation: int  # of the convolution that carries the stride
    dilation: int  # of those after it


class BasicBlock(nn.Module):
    """1512.03385 Figure 5, left."""

    expansion = 1

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, norm: NormLayer) -> None:
        super().__init__()
        planes, first, later = plan.planes, plan.first_dilation, plan.dilation
        self.conv1 = nn.Conv2d(plan.in_channels, planes, 3, plan.stride, padding=first, dilation=first, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=later, dilation=later, bias=False)
        self.bn2 = norm(planes)
        self.downsample = shortcut(plan, planes, spec, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        residual += self.downsample(x)
        return self.relu(residual)


class Bottleneck(nn.Module):
    """1512.03385 Figure 5, right; the 3x3 carries the stride (torchvision's "V1.5") and the groups (1611.05431)."""

    expansion = 4

    def __init__(self, plan: BlockPlan, spec: ResNetSpec, norm: NormLayer) -> None:
        super().__init__()
        width = plan.planes * spec.width_per_group // 64 * spec.groups
        out_channels = plan.planes * self.expansion
        first = plan.first_dilation
        self.conv1 = nn.Conv2d(plan.in_channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, plan.stride, padding=first, dilation=first, groups=spec.groups, bias=False
        )
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample = shortcut(plan, out_channels, spec, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        residual += self.downsample(x)
        return self.relu(residual)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


def shortcut(plan: BlockPlan, out_channels: int, spec: ResNetSpec, norm: NormLayer) -> nn.Sequential | nn.Identity:
    """What carries a block's input past its convolutions: nothing, or a 1x1 projection where the shape changes."""
    if plan.stride == 1 and plan.in_channels == out_channels:
        return nn.Identity()
    if not spec.avg_down:
        convolution = nn.Conv2d(plan.in_channels, out_channels, 1, plan.stride, bias=False)
        return nn.Sequential(convolution, norm(out_channels))
    convolution = nn.Conv2d(plan.in_channels, out_channels, 1, bias=False)
    return nn.Sequential(_average_pool(plan), convolution, norm(out_channels))


def _average_pool(plan: BlockPlan) -> nn.Module:
    """ResNet-D's 2x2 mean (1812.01187 Figure 2c); under dilation it keeps the size and counts zeros past the edge.

    The cases and the padding are timm's.
    """
    if plan.stride > 1:
        return nn.AvgPool2d(2, plan.stride, ceil_mode=True, count_include_pad=False)
    if plan.dilation > 1:
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1))
    return nn.Identity()
