"""ResNet, ResNeXt, Wide ResNet and ResNet-D: one class, whose rows stand in ``variants.py``."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, field_validator, model_validator
from torch import Tensor, nn

from ..ops import NormLayer, norm_layer
from ..structures import FeatureInfo, Features, PartConfig, suggest
from .base import Backbone, backbones
from .blocks import BLOCKS, BlockPlan
from .stems import stem_convolution
from .variants import RESNETS, ResNetSpec

Level = Literal["c2", "c3", "c4", "c5"]
STAGES: dict[Level, str] = {"c2": "layer1", "c3": "layer2", "c4": "layer3", "c5": "layer4"}
"""The stage that makes each level."""


class ResNetConfig(PartConfig):
    """A row of the family and how it is built. A public state dict fits every setting that builds all stages."""

    levels: tuple[Level, ...] = Field(default=tuple(STAGES), min_length=1)
    """Fine to coarse; stages after the last one are not built."""
    output_stride: Literal[8, 16, 32] = 32
    """No level is coarser than this: later stages are dilated instead of strided (1606.00915)."""
    norm: Literal["batch", "frozen"] = "batch"
    """``frozen`` keeps statistics and affine weights as they were loaded."""
    norm_eps: NonNegativeFloat = 1e-5
    """Added to the variance. torchvision's COCO_V1 detectors: 0."""
    freeze_at: int = Field(default=0, ge=0, le=5)
    """How many stages learn nothing and have frozen norms, as detectron2 counts: 1 is the stem, 2 also c2's stage."""

    @property
    def built(self) -> tuple[Level, ...]:
        """The levels whose stages exist."""
        return tuple(level for level in STAGES if level <= self.levels[-1])

    def frozen(self, level: str) -> bool:
        """Whether the stage of this level learns nothing; the stem counts as c1."""
        return level in ("c1", *STAGES)[: self.freeze_at]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in RESNETS:
            raise ValueError(f"there is no residual network named {name!r}: {suggest(name, RESNETS)}")
        return name

    @model_validator(mode="after")
    def _check_levels(self) -> "ResNetConfig":
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels go fine to coarse, each once, like ('c2', 'c5'); got {self.levels}")
        if self.freeze_at > 1 + len(self.built):
            raise ValueError(
                f"freeze_at counts the stem and the stages built, here up to {self.built[-1]}, so at most "
                f"{1 + len(self.built)}; got {self.freeze_at}: lower it or ask for a coarser level"
            )
        return self


class ResNet(Backbone):
    """Image -> c2..c5. Parameters are named as torchvision's; those of ResNet-D and the tiered stem as timm's."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        spec = RESNETS[config.name]
        self.config = config
        self.conv1 = stem_convolution(spec.stem, _norm(config, "c1"))
        self.bn1 = _norm(config, "c1")(spec.stem[-1])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv1.requires_grad_(not config.frozen("c1"))
        self.stages = config.built
        self.feature_info = {}
        stride = 4
        for level, depth, plan in zip(self.stages, spec.depths, _plans(spec, config.output_stride), strict=False):
            stage = _stage(plan, depth, spec, _norm(config, level))
            stage.requires_grad_(not config.frozen(level))
            self.add_module(STAGES[level], stage)
            stride *= plan.stride
            if level in config.levels:
                self.feature_info[level] = FeatureInfo(plan.planes * BLOCKS[spec.block].expansion, stride)
        self._initialize()

    def _initialize(self) -> None:
        """He's normal initialisation by fan-out, as torchvision; norms start as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Features:
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        features = {}
        for level in self.stages:
            hidden = getattr(self, STAGES[level])(hidden)
            if level in self.feature_info:
                features[level] = hidden
        return features


def _norm(config: ResNetConfig, level: str) -> NormLayer:
    return norm_layer("frozen" if config.frozen(level) else config.norm, config.norm_eps)


def _plans(spec: ResNetSpec, output_stride: int) -> Iterator[BlockPlan]:
    """The first block of each stage; one that would stride past ``output_stride`` doubles the dilation instead.

    That block's own strided convolution already sees the grid before it, so it keeps the dilation of the stage before.
    """
    channels, reached, dilation = spec.stem[-1], 4, 1
    for planes, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        previous_dilation = dilation
        if reached * stride > output_stride:
            dilation, stride = dilation * stride, 1
        yield BlockPlan(channels, planes, stride, previous_dilation, dilation)
        channels, reached = planes * BLOCKS[spec.block].expansion, reached * stride


def _stage(first: BlockPlan, depth: int, spec: ResNetSpec, norm: NormLayer) -> nn.Sequential:
    """Blocks of which only the first changes the shape."""
    block = BLOCKS[spec.block]
    later = replace(first, in_channels=first.planes * block.expansion, stride=1, first_dilation=first.dilation)
    return nn.Sequential(*(block(later if index else first, spec, norm) for index in range(depth)))


for _name in RESNETS:
    backbones.register(_name, ResNetConfig)(ResNet)
