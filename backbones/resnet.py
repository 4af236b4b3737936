"""ResNet, ResNeXt, Wide ResNet, ResNet-B/C/D/S, SE- and ECA-ResNet: one class, whose rows stand in ``variants.py``."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from ..structures import CAFFE_INPUT, FeatureInfo, Features, InputConfig, Level, Levels, suggest
from .base import BACKBONES, Backbone, BackboneConfig
from .blocks import BLOCKS, BlockPlan
from .layers import Layers, initialize
from .recompute import recompute
from .stems import stem_convolution, stem_pool
from .variants import RESNETS, ResNetSpec


class ResNetConfig(BackboneConfig):
    """A row of the family and how it is built. A public state dict fits every setting that builds all stages."""

    levels: Levels | None = None
    """Fine to coarse; stages after the last one are not built. None: all that the row has."""
    in_channels: PositiveInt = 3
    style: Literal["pytorch", "caffe"] = "pytorch"
    """``caffe``: ResNets from Caffe, which stride in a bottleneck's first 1x1 and take BGR pixels 0..255."""
    output_stride: Literal[8, 16, 32] = 32
    """No level is coarser than this: later stages are dilated instead of strided (1606.00915)."""
    multi_grid: tuple[PositiveInt, ...] | None = None
    """Factors on the dilation of each block of the last stage, such as (1, 2, 4) (1706.05587 section 3.2.1)."""
    norm: Literal["batch", "frozen", "sync", "group", "none"] = "batch"
    """``frozen`` keeps statistics and affine weights as they were loaded; ``sync`` collects statistics over all
    processes; ``none`` gives the convolutions biases instead."""
    norm_eps: NonNegativeFloat = 1e-5
    """Added to the variance. torchvision's COCO_V1 detectors: 0."""
    freeze_at: int = Field(default=0, ge=0, le=5)
    """How many stages learn nothing and have frozen norms, as detectron2 counts: 1 is the stem, 2 also the first."""
    deformable: tuple[Level, ...] = ()
    """Levels whose stage has deformable 3x3 convolutions (DCNv2); published detectors: c3, c4, c5."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (1603.09382): how often training skips the last block; the first is never skipped, the others
    lie linearly between, as in timm."""
    zero_init_residual: bool = False
    """Start every block as its shortcut: the last norm's weights are zero (1706.02677 section 5.1). timm's default."""
    checkpointed: tuple[Level, ...] = ()
    """Levels whose stage keeps no activations and computes them anew in the backward pass: memory for time."""

    def input(self) -> InputConfig:
        """Caffe's pixels in its style, else 0..1."""
        return CAFFE_INPUT if self.style == "caffe" else InputConfig.for_channels(self.in_channels)

    @property
    def spec(self) -> ResNetSpec:
        """The row."""
        return RESNETS[self.name]

    @property
    def built(self) -> tuple[str, ...]:
        """The levels whose stages exist."""
        levels = self.spec.levels
        return levels if self.levels is None else levels[: levels.index(self.levels[-1]) + 1]

    def frozen(self, stage: int) -> bool:
        """Whether a stage learns nothing; the stem is stage 0."""
        return stage < self.freeze_at

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in RESNETS:
            raise ValueError(f"there is no residual network named {name!r}: {suggest(name, RESNETS)}")
        return name

    @model_validator(mode="after")
    def _check_levels(self) -> "ResNetConfig":
        known = self.spec.levels
        if unknown := [level for level in self.levels or () if level not in known]:
            raise ValueError(f"{self.name} has levels {', '.join(known)}; got {', '.join(unknown)}")
        for field in ("deformable", "checkpointed"):
            if unknown := set(getattr(self, field)) - set(self.built):
                raise ValueError(f"{field} names levels that are not built: {sorted(unknown)}; {self.built} are")
        if self.freeze_at > 1 + len(self.built):
            raise ValueError(
                f"freeze_at counts the stem and the stages built, here up to {self.built[-1]}, so at most "
                f"{1 + len(self.built)}; got {self.freeze_at}: lower it or ask for a coarser level"
            )
        depth = self.spec.depths[len(self.built) - 1]
        if self.multi_grid is not None and len(self.multi_grid) != depth:
            raise ValueError(f"multi_grid needs a factor for each of {self.built[-1]}'s {depth} blocks")
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> "ResNetConfig":
        if self.zero_init_residual and self.norm == "none":
            raise ValueError("zero_init_residual zeroes a norm's weights, and norm='none' has none")
        if self.zero_init_residual and self.spec.shortcut == "none":
            raise ValueError(f"zero_init_residual leaves {self.name} no path at all: it has no shortcuts")
        if self.style == "caffe" and self.in_channels != 3:
            raise ValueError(f"style='caffe' is for blue, green and red; got in_channels={self.in_channels}")
        frozen = [level for number, level in enumerate(self.built, start=1) if self.frozen(number)]
        if stuck := sorted(set(self.deformable) & set(frozen)):
            raise ValueError(f"deformable {stuck} would never learn where to look: freeze_at={self.freeze_at}")
        return self


class ResNet(Backbone):
    """Image -> c2..c5 (networks for small images: c0..c2). Parameters have torchvision's names, or timm's beyond."""

    config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        spec = config.spec
        self.config = config
        self.input = config.input()
        stem = _layers(config, 0)
        self.conv1 = stem_convolution(config.in_channels, spec, stem)
        self.bn1 = stem.norm(spec.stem[-1])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = stem_pool(spec)
        for module in (self.conv1, self.bn1):
            module.requires_grad_(not config.frozen(0))
        self.stages: dict[str, str] = {}  # level -> the name of the stage that makes it
        self.feature_info = {}
        stride = spec.stem_stride
        for number, (level, plans) in enumerate(zip(config.built, _plan(spec, config), strict=False), start=1):
            self.stages[level] = f"layer{number}"
            block, layers = BLOCKS[spec.block], _layers(config, number)
            stage = nn.Sequential(*(block(plan, spec, layers) for plan in plans))
            self.add_module(self.stages[level], stage.requires_grad_(not config.frozen(number)))
            stride *= plans[0].stride
            if config.levels is None or level in config.levels:
                self.feature_info[level] = FeatureInfo(plans[0].planes * block.expansion, stride)
        initialize(self)
        if config.zero_init_residual:
            self._zero_residuals()

    def _zero_residuals(self) -> None:
        last = "bn2.weight" if self.config.spec.block == "basic" else "bn3.weight"
        for stage in self.stages.values():
            for block in self.get_submodule(stage).children():
                block.state_dict()[last].zero_()  # a parameter, or a frozen norm's buffer

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        features = {}
        for level, name in self.stages.items():
            stage = getattr(self, name)
            again = level in self.config.checkpointed and torch.is_grad_enabled()
            hidden = recompute(stage, hidden) if again else stage(hidden)
            if level in self.feature_info:
                features[level] = hidden
        return features

    def parameter_layers(self) -> dict[str, int]:
        """The stem's, then a layer for each block."""
        stages = self.stages.values()
        blocks = [f"{stage}.{block}" for stage in stages for block, _ in self.get_submodule(stage).named_children()]
        depths = {block: depth for depth, block in enumerate(blocks, start=1)}
        return {name: depths.get(".".join(name.split(".")[:2]), 0) for name, _ in self.named_parameters()}


def _layers(config: ResNetConfig, number: int) -> Layers:
    """The layers of a stage; the stem is number 0. Norms without statistics are frozen by their weights alone."""
    frozen = config.frozen(number) and config.norm in ("batch", "sync")
    deformable = number > 0 and config.built[number - 1] in config.deformable
    return Layers("frozen" if frozen else config.norm, config.norm_eps, deformable)


def _plan(spec: ResNetSpec, config: ResNetConfig) -> Iterator[list[BlockPlan]]:
    """The blocks of each stage; one that would stride past ``output_stride`` doubles the dilation instead.

    The convolution that carried that stride already sees the grid before it, so it keeps the dilation of the stage
    before; Caffe's 3x3 comes after the stride and does not, and neither does a multi-grid's, as in the paper.
    """
    caffe, expansion = config.style == "caffe", BLOCKS[spec.block].expansion
    channels, reached, dilation, index = spec.stem[-1], spec.stem_stride, 1, 0
    for stage, (level, depth) in enumerate(zip(spec.levels, spec.depths, strict=True)):
        planes, stride, previous_dilation = spec.planes * 2**stage, 1 if stage == 0 else 2, dilation
        if reached * stride > config.output_stride:
            dilation, stride = dilation * stride, 1
        multi_grid = config.multi_grid if level == config.built[-1] else None
        factors = multi_grid or (1,) * depth
        plans = []
        for place, factor in enumerate(factors):
            keeps = place == 0 and not multi_grid and not (caffe and spec.block == "bottleneck")
            first = previous_dilation if keeps else dilation
            drop_path = config.drop_path * index / max(1, sum(spec.depths) - 1)
            plans.append(
                BlockPlan(
                    channels, planes, stride if place == 0 else 1, caffe, first * factor, dilation * factor, drop_path
                )
            )
            channels, index = planes * expansion, index + 1
        yield plans
        reached *= stride


for _name in RESNETS:
    BACKBONES.register(_name, ResNetConfig)(ResNet)
