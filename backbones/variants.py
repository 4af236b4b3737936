"""The residual family as a table: every row is one published network."""

from dataclasses import dataclass
from typing import Literal

PLAIN_STEM = (64,)
DEEP_STEM = (32, 32, 64)  # ResNet-C and -D: 1812.01187 Figure 2
TIERED_STEM = (24, 32, 64)  # timm's "t" networks


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """What makes one network of the family differ from another."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]  # blocks per stage
    groups: int = 1  # of the 3x3 convolution: ResNeXt's cardinality
    width_per_group: int = 64  # channels of a group in the first stage; each stage doubles it
    stem: tuple[int, ...] = PLAIN_STEM  # output channels of its convolutions: a single 7x7, or several 3x3
    avg_down: bool = False  # the shortcut halves by average pooling, not by its strided 1x1: ResNet-D


RESNETS = {
    # 1512.03385, with the stride in the 3x3 convolution ("V1.5"), as torchvision has it.
    "resnet18": ResNetSpec("basic", (2, 2, 2, 2)),
    "resnet34": ResNetSpec("basic", (3, 4, 6, 3)),
    "resnet50": ResNetSpec("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetSpec("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetSpec("bottleneck", (3, 8, 36, 3)),
    # ResNeXt: 1611.05431.
    "resnext50_32x4d": ResNetSpec("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    # Wide ResNet: 1605.07146, in torchvision's ImageNet form.
    "wide_resnet50_2": ResNetSpec("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNetSpec("bottleneck", (3, 4, 23, 3), width_per_group=128),
    # ResNet-D: 1812.01187 section 4.
    "resnet18d": ResNetSpec("basic", (2, 2, 2, 2), stem=DEEP_STEM, avg_down=True),
    "resnet34d": ResNetSpec("basic", (3, 4, 6, 3), stem=DEEP_STEM, avg_down=True),
    "resnet50d": ResNetSpec("bottleneck", (3, 4, 6, 3), stem=DEEP_STEM, avg_down=True),
    "resnet101d": ResNetSpec("bottleneck", (3, 4, 23, 3), stem=DEEP_STEM, avg_down=True),
    "resnet152d": ResNetSpec("bottleneck", (3, 8, 36, 3), stem=DEEP_STEM, avg_down=True),
    # timm's smallest.
    "resnet10t": ResNetSpec("basic", (1, 1, 1, 1), stem=TIERED_STEM, avg_down=True),
    "resnet14t": ResNetSpec("bottleneck", (1, 1, 1, 1), stem=TIERED_STEM, avg_down=True),
}
