"""The table of the residual family: each row defines one published network."""

from dataclasses import dataclass
from typing import Literal

Style = Literal["pytorch", "caffe"]
"""The convention of a ResNet's weights. ``pytorch``: the stride of a bottleneck is in its 3x3 convolution, pixels are
RGB, 0..1; ``caffe``: the stride is in the first 1x1 convolution, pixels are BGR, 0..255."""

PLAIN_STEM = (64,)
DEEP_STEM = (32, 32, 64)  # ResNet-C and -D: 1812.01187 Figure 2
WIDE_STEM = (64, 64, 128)  # ResNet-S, GluonCV's
TIERED_STEM = (24, 32, 64)  # timm's "t" networks
SMALL_STEM = (16,)  # 1512.03385 section 4.2, for images of 32 pixels

D10, D18, D26, D50 = (1, 1, 1, 1), (2, 2, 2, 2), (2, 2, 2, 2), (3, 4, 6, 3)
D101, D152, D200, D269 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3), (3, 30, 48, 8)


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """The architecture of one network of the residual family."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]  # blocks per stage
    planes: int = 64  # output channels / expansion of the first stage; each later stage doubles it
    groups: int = 1  # groups of the 3x3 convolution: ResNeXt's cardinality
    width_per_group: int = 64  # channels per group for 64 planes
    stem: tuple[int, ...] = PLAIN_STEM  # output channels of the stem's convolutions: one 7x7, or several 3x3
    stem_stride: Literal[1, 4] = 4  # 1: a 3x3 convolution without pooling, for small images
    shortcut: Literal["projection", "average", "pad", "none"] = "projection"
    """Type of the shortcuts that change the shape (1512.03385 section 3.3). ``projection``: a strided 1x1 convolution
    (option B); ``average``: average pooling and a 1x1 convolution (ResNet-D); ``pad``: zero-padded channels (option A);
    ``none``: the network has no shortcuts (a plain network)."""
    attention: Literal["none", "se", "eca"] = "none"

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of the levels of the stages: ``cN`` has stride 2^N, before any dilation."""
        first = {1: 0, 4: 2}[self.stem_stride]
        return tuple(f"c{first + stage}" for stage in range(len(self.depths)))


def _cifar(depth: int, shortcut: Literal["pad", "none"]) -> ResNetSpec:
    """Return a network with ``depth`` = 6n + 2 layers for images of 32 x 32 pixels (1512.03385 section 4.2)."""
    blocks = (depth - 2) // 6
    return ResNetSpec("basic", (blocks,) * 3, planes=16, stem=SMALL_STEM, stem_stride=1, shortcut=shortcut)


RESNETS = {
    # 1512.03385, with the stride in the 3x3 convolution ("V1.5", ResNet-B of 1812.01187), as in torchvision.
    "resnet18": ResNetSpec("basic", D18),
    "resnet34": ResNetSpec("basic", D50),
    "resnet26": ResNetSpec("bottleneck", D26),
    "resnet50": ResNetSpec("bottleneck", D50),
    "resnet101": ResNetSpec("bottleneck", D101),
    "resnet152": ResNetSpec("bottleneck", D152),
    "resnet200": ResNetSpec("bottleneck", D200),
    # Wide ResNet: 1605.07146, in torchvision's ImageNet form.
    "wide_resnet50_2": ResNetSpec("bottleneck", D50, width_per_group=128),
    "wide_resnet101_2": ResNetSpec("bottleneck", D101, width_per_group=128),
    # ResNeXt: 1611.05431. The 32x16d and 32x32d weights were trained on Instagram photos (1805.00932).
    "resnext50_32x4d": ResNetSpec("bottleneck", D50, groups=32, width_per_group=4),
    "resnext101_32x4d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=8),
    "resnext101_32x16d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=16),
    "resnext101_32x32d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=32),
    "resnext101_64x4d": ResNetSpec("bottleneck", D101, groups=64, width_per_group=4),
    "resnext152_32x4d": ResNetSpec("bottleneck", D152, groups=32, width_per_group=4),
    # ResNet-C: 1812.01187 Figure 2b. ResNet-S: its stem twice as wide.
    "resnet50c": ResNetSpec("bottleneck", D50, stem=DEEP_STEM),
    "resnet101c": ResNetSpec("bottleneck", D101, stem=DEEP_STEM),
    "resnet152c": ResNetSpec("bottleneck", D152, stem=DEEP_STEM),
    "resnet50s": ResNetSpec("bottleneck", D50, stem=WIDE_STEM),
    "resnet101s": ResNetSpec("bottleneck", D101, stem=WIDE_STEM),
    "resnet152s": ResNetSpec("bottleneck", D152, stem=WIDE_STEM),
    # ResNet-D: 1812.01187 section 4.
    "resnet18d": ResNetSpec("basic", D18, stem=DEEP_STEM, shortcut="average"),
    "resnet34d": ResNetSpec("basic", D50, stem=DEEP_STEM, shortcut="average"),
    "resnet26d": ResNetSpec("bottleneck", D26, stem=DEEP_STEM, shortcut="average"),
    "resnet50d": ResNetSpec("bottleneck", D50, stem=DEEP_STEM, shortcut="average"),
    "resnet101d": ResNetSpec("bottleneck", D101, stem=DEEP_STEM, shortcut="average"),
    "resnet152d": ResNetSpec("bottleneck", D152, stem=DEEP_STEM, shortcut="average"),
    "resnet200d": ResNetSpec("bottleneck", D200, stem=DEEP_STEM, shortcut="average"),
    "resnext50d_32x4d": ResNetSpec("bottleneck", D50, groups=32, width_per_group=4, stem=DEEP_STEM, shortcut="average"),
    # timm's tiered stems.
    "resnet10t": ResNetSpec("basic", D10, stem=TIERED_STEM, shortcut="average"),
    "resnet14t": ResNetSpec("bottleneck", D10, stem=TIERED_STEM, shortcut="average"),
    "resnet26t": ResNetSpec("bottleneck", D26, stem=TIERED_STEM, shortcut="average"),
    "resnet50t": ResNetSpec("bottleneck", D50, stem=TIERED_STEM, shortcut="average"),
    # Squeeze-and-excitation: 1709.01507.
    "seresnet18": ResNetSpec("basic", D18, attention="se"),
    "seresnet34": ResNetSpec("basic", D50, attention="se"),
    "seresnet50": ResNetSpec("bottleneck", D50, attention="se"),
    "seresnet101": ResNetSpec("bottleneck", D101, attention="se"),
    "seresnet152": ResNetSpec("bottleneck", D152, attention="se"),
    "seresnet50t": ResNetSpec("bottleneck", D50, stem=TIERED_STEM, shortcut="average", attention="se"),
    "seresnet152d": ResNetSpec("bottleneck", D152, stem=DEEP_STEM, shortcut="average", attention="se"),
    "seresnet200d": ResNetSpec("bottleneck", D200, stem=DEEP_STEM, shortcut="average", attention="se"),
    "seresnet269d": ResNetSpec("bottleneck", D269, stem=DEEP_STEM, shortcut="average", attention="se"),
    "seresnext50_32x4d": ResNetSpec("bottleneck", D50, groups=32, width_per_group=4, attention="se"),
    "seresnext101_32x4d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=4, attention="se"),
    "seresnext101_32x8d": ResNetSpec("bottleneck", D101, groups=32, width_per_group=8, attention="se"),
    "seresnext101_64x4d": ResNetSpec("bottleneck", D101, groups=64, width_per_group=4, attention="se"),
    "seresnext26d_32x4d": ResNetSpec(
        "bottleneck", D26, groups=32, width_per_group=4, stem=DEEP_STEM, shortcut="average", attention="se"
    ),
    "seresnext26t_32x4d": ResNetSpec(
        "bottleneck", D26, groups=32, width_per_group=4, stem=TIERED_STEM, shortcut="average", attention="se"
    ),
    "seresnext101d_32x8d": ResNetSpec(
        "bottleneck", D101, groups=32, width_per_group=8, stem=DEEP_STEM, shortcut="average", attention="se"
    ),
    # Efficient channel attention: 1910.03151.
    "ecaresnet26t": ResNetSpec("bottleneck", D26, stem=TIERED_STEM, shortcut="average", attention="eca"),
    "ecaresnet50t": ResNetSpec("bottleneck", D50, stem=TIERED_STEM, shortcut="average", attention="eca"),
    "ecaresnet50d": ResNetSpec("bottleneck", D50, stem=DEEP_STEM, shortcut="average", attention="eca"),
    "ecaresnet101d": ResNetSpec("bottleneck", D101, stem=DEEP_STEM, shortcut="average", attention="eca"),
    "ecaresnet200d": ResNetSpec("bottleneck", D200, stem=DEEP_STEM, shortcut="average", attention="eca"),
    "ecaresnet269d": ResNetSpec("bottleneck", D269, stem=DEEP_STEM, shortcut="average", attention="eca"),
    "ecaresnetlight": ResNetSpec("bottleneck", (1, 1, 11, 3), shortcut="average", attention="eca"),
    "ecaresnext26t_32x4d": ResNetSpec(
        "bottleneck", D26, groups=32, width_per_group=4, stem=TIERED_STEM, shortcut="average", attention="eca"
    ),
    "ecaresnext50t_32x4d": ResNetSpec(
        "bottleneck", D50, groups=32, width_per_group=4, stem=TIERED_STEM, shortcut="average", attention="eca"
    ),
    # 1512.03385 section 4.2: networks for images of 32 x 32 pixels, and plain networks without shortcuts.
    **{f"cifar_resnet{depth}": _cifar(depth, "pad") for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_plain{depth}": _cifar(depth, "none") for depth in (20, 32, 44, 56, 110, 1202)},
}
