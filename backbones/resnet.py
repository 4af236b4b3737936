"""The residual family: ResNet, ResNeXt, Wide ResNet, ResNet-B/C/D/S, SE-ResNet and ECA-ResNet.

All are one class, with a row for each network in ``variants.py``.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from ..structures import CAFFE_INPUT, FeatureInfo, Features, InputConfig, Level, Levels, suggest
from .base import BACKBONES, Backbone, BackboneConfig
from .blocks import BLOCKS, BlockPlan, make_stem, make_stem_pool
from .layers import Layers, initialize
from .recompute import recompute
from .variants import RESNETS, ResNetSpec, Style

STEM_LEVEL = "c1"
"""The level of the stem before its pooling, as timm has it."""


class ResNetConfig(BackboneConfig):
    """The options of a network of the residual family; ``name`` is a row of the table in ``variants.py``.

    Published weights fit any combination of options in which ``norm`` is ``batch``, ``frozen`` or ``sync``.
    """

    levels: Levels | None = None
    """The levels to return, from fine to coarse; stages after the last are not built. None: the levels of all stages.
    ``c1`` is the stem before its pooling, in networks that have a pooling."""
    in_channels: PositiveInt = 3
    style: Style = "pytorch"
    """``caffe`` builds ResNets for weights published for Caffe: the stride of a bottleneck is in its first 1x1
    convolution instead of the 3x3, and pixels are BGR, 0..255. Weights of one style are useless in the other."""
    output_stride: Literal[8, 16, 32] = 32
    """Maximum stride: stages that would exceed it are dilated instead of strided (1606.00915)."""
    multi_grid: tuple[PositiveInt, ...] | None = None
    """Multipliers of the dilation of each block of the last stage, such as (1, 2, 4) (1706.05587 section 3.2.1)."""
    dilate_first: bool = False
    """Whether the first 3x3 convolution of a dilated stage, which would have had the stride, has the dilation of its
    own stage instead of the stage before. segmentation_models_pytorch: True."""
    norm: Literal["batch", "frozen", "sync", "group", "none"] = "batch"
    """Normalization layer. ``frozen``: batch norm with fixed statistics and affine weights; ``sync``: batch norm with
    statistics over all processes; ``none``: no norms, but biases in the convolutions."""
    norm_eps: NonNegativeFloat = 1e-5
    """Epsilon added to the variance. torchvision's COCO_V1 detectors use 0."""
    freeze_at: int = Field(default=0, ge=0, le=5)
    """Number of stages whose weights and norms are frozen, counted as in detectron2: 1 freezes the stem, 2 also the
    first stage."""
    deformable: tuple[Level, ...] = ()
    """Levels whose stages have deformable 3x3 convolutions (DCNv2); published detectors use c3, c4 and c5."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (1603.09382): the probability of skipping the last block in training. It rises linearly from 0
    at the first block, as in timm."""
    zero_init_residual: bool = False
    """Zero-initialize the last norm of every block, so that blocks start as their shortcuts (1706.02677 section 5.1).
    timm does so by default."""
    checkpointed: tuple[Level, ...] = ()
    """Levels whose stages use activation checkpointing, which saves memory and costs time."""

    def default_input(self) -> InputConfig:
        """Return Caffe's normalization (BGR, 0..255) for ``style="caffe"``, otherwise ImageNet's (RGB, 0..1)."""
        return CAFFE_INPUT if self.style == "caffe" else InputConfig.for_channels(self.in_channels)

    @property
    def spec(self) -> ResNetSpec:
        """The network's row in the table of variants."""
        return RESNETS[self.name]

    @property
    def built_levels(self) -> tuple[str, ...]:
        """The levels whose stages are built, including levels that are not returned."""
        levels = self.spec.levels
        return levels if self.levels is None else levels[: levels.index(self.levels[-1]) + 1]

    @property
    def returns_stem(self) -> bool:
        """Whether ``c1`` is one of the levels to return."""
        return self.levels is not None and STEM_LEVEL in self.levels and self.spec.stem_stride == 4

    def is_frozen(self, stage: int) -> bool:
        """Return whether a stage is frozen; the stem is stage 0."""
        return stage < self.freeze_at

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in RESNETS:
            raise ValueError(f"there is no residual network named {name!r}: {suggest(name, RESNETS)}")
        return name

    @model_validator(mode="after")
    def _check_levels(self) -> "ResNetConfig":
        known = self.spec.levels if self.spec.stem_stride == 1 else (STEM_LEVEL, *self.spec.levels)
        if self.levels == (STEM_LEVEL,) and self.spec.stem_stride == 4:
            raise ValueError(f"{STEM_LEVEL} alone has no stage: request a coarser level too")
        if unknown := [level for level in self.levels or () if level not in known]:
            raise ValueError(f"{self.name} has levels {', '.join(known)}; got {', '.join(unknown)}")
        built = self.built_levels
        for field in ("deformable", "checkpointed"):
            if unknown := set(getattr(self, field)) - set(built):
                raise ValueError(f"{field} names levels that are not built: {sorted(unknown)}; built are {built}")
        if self.freeze_at > 1 + len(built):
            raise ValueError(
                f"freeze_at is at most {1 + len(built)}, the stem and the stages built (up to {built[-1]}); "
                f"got {self.freeze_at}: lower it or request a coarser level"
            )
        depth = self.spec.depths[len(built) - 1]
        if self.multi_grid is not None and len(self.multi_grid) != depth:
            raise ValueError(f"multi_grid needs {depth} factors, one for each block of {built[-1]}")
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> "ResNetConfig":
        if self.zero_init_residual and self.norm == "none":
            raise ValueError("zero_init_residual needs norms, but norm='none' has none: leave one of them out")
        if self.zero_init_residual and self.spec.shortcut == "none":
            raise ValueError(f"zero_init_residual would make every block of {self.name} output 0: it has no shortcuts")
        if self.style == "caffe" and self.in_channels != 3:
            raise ValueError(f"style='caffe' needs 3 channels (BGR); got in_channels={self.in_channels}")
        frozen = {level for stage, level in enumerate(self.built_levels, start=1) if self.is_frozen(stage)}
        if frozen_deformable := sorted(set(self.deformable) & frozen):
            raise ValueError(
                f"deformable {frozen_deformable} would never learn offsets, since freeze_at={self.freeze_at} freezes "
                "them: lower freeze_at, or leave out these levels"
            )
        return self


class ResNet(Backbone):
    """A network of the residual family, which returns the levels c2..c5, or c0..c2 in networks for small images.

    Parameters have torchvision's names, or timm's if torchvision lacks the network, so that published weights load.
    """

    config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        spec = config.spec
        self.config = config
        self.input = config.default_input()
        stem = _stage_layers(config, 0)
        self.conv1 = make_stem(config.in_channels, spec, stem)
        self.bn1 = stem.norm(spec.stem[-1])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = make_stem_pool(spec)
        for module in (self.conv1, self.bn1):
            module.requires_grad_(not config.is_frozen(0))
        self.stages: dict[str, str] = {}  # level -> name of the module that computes it
        self.feature_info = {STEM_LEVEL: FeatureInfo(spec.stem[-1], 2)} if config.returns_stem else {}
        stride = spec.stem_stride
        block = BLOCKS[spec.block]
        for number, (level, plans) in enumerate(zip(config.built_levels, _plan_stages(config), strict=False), start=1):
            self.stages[level] = f"layer{number}"
            layers = _stage_layers(config, number)
            stage = nn.Sequential(*(block(plan, spec, layers) for plan in plans))
            self.add_module(self.stages[level], stage.requires_grad_(not config.is_frozen(number)))
            stride *= plans[0].stride
            if config.levels is None or level in config.levels:
                self.feature_info[level] = FeatureInfo(plans[0].planes * block.expansion, stride)
        initialize(self)
        if config.zero_init_residual:
            self._zero_residual_norms()

    def _zero_residual_norms(self) -> None:
        last_norm = "bn2.weight" if self.config.spec.block == "basic" else "bn3.weight"
        for stage in self.stages.values():
            for block in self.get_submodule(stage).children():
                block.state_dict()[last_norm].zero_()  # a parameter, or the buffer of a frozen norm

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        stem = self.relu(self.bn1(self.conv1(pixels)))
        features = {STEM_LEVEL: stem} if self.config.returns_stem else {}
        hidden = self.maxpool(stem)
        for level, name in self.stages.items():
            stage = getattr(self, name)
            if level in self.config.checkpointed and torch.is_grad_enabled():
                hidden = recompute(stage, hidden)
            else:
                hidden = stage(hidden)
            if level in self.feature_info:
                features[level] = hidden
        return features

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer index of every parameter by its name: 0 for the stem, then 1, 2, ... for the blocks."""
        stages = self.stages.values()
        blocks = [f"{stage}.{block}" for stage in stages for block, _ in self.get_submodule(stage).named_children()]
        depths = {block: depth for depth, block in enumerate(blocks, start=1)}
        return {name: depths.get(".".join(name.split(".")[:2]), 0) for name, _ in self.named_parameters()}


def _stage_layers(config: ResNetConfig, stage: int) -> Layers:
    """Return the layer factory of a stage; the stem is stage 0.

    In a frozen stage, norms with running statistics are replaced by frozen norms; other norms only need weights
    without gradient.
    """
    frozen = config.is_frozen(stage) and config.norm in ("batch", "sync")
    deformable = stage > 0 and config.built_levels[stage - 1] in config.deformable
    return Layers("frozen" if frozen else config.norm, config.norm_eps, deformable)


def _plan_stages(config: ResNetConfig) -> Iterator[list[BlockPlan]]:
    """Yield the block plans of each stage, including stages that are not built.

    A stage that would exceed ``output_stride`` doubles the dilation instead of striding. Its first 3x3 convolution,
    which would have had the stride, keeps the dilation of the previous stage, as in torchvision. It is dilated in two
    cases: in Caffe's style, where the stride comes before the 3x3 convolution, and with a multi-grid (1706.05587). The
    option ``dilate_first`` dilates it always.
    """
    spec = config.spec
    expansion, stride_in_1x1 = BLOCKS[spec.block].expansion, config.style == "caffe"
    channels, total_stride, dilation, block_index = spec.stem[-1], spec.stem_stride, 1, 0
    for stage, (level, depth) in enumerate(zip(spec.levels, spec.depths, strict=True)):
        planes, stride, previous_dilation = spec.planes * 2**stage, 1 if stage == 0 else 2, dilation
        if total_stride * stride > config.output_stride:
            dilation, stride = dilation * stride, 1
        multi_grid = config.multi_grid if level == config.built_levels[-1] else None
        keeps_dilation = multi_grid is None and not (stride_in_1x1 and spec.block == "bottleneck")
        keeps_dilation = keeps_dilation and not config.dilate_first
        plans = []
        for index, factor in enumerate(multi_grid or (1,) * depth):
            first_dilation = previous_dilation if index == 0 and keeps_dilation else dilation
            plans.append(
                BlockPlan(
                    in_channels=channels,
                    planes=planes,
                    stride=stride if index == 0 else 1,
                    stride_in_1x1=stride_in_1x1,
                    first_dilation=first_dilation * factor,
                    dilation=dilation * factor,
                    drop_path=config.drop_path * block_index / max(1, sum(spec.depths) - 1),
                )
            )
            channels, block_index = planes * expansion, block_index + 1
        yield plans
        total_stride *= stride


for _name in RESNETS:
    BACKBONES.register(_name, ResNetConfig)(ResNet)
