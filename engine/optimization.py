"""Optimisers, and learning rates as a function of the step."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn, optim

from ..structures import Config

Decay = Annotated[float, Field(ge=0, lt=1)]


class SGDConfig(Config):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.9, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    norm_weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the scales and shifts of normalisation layers (detectron2's default; torchvision's is weight_decay)."""


class AdamWConfig(Config):
    """Adam with decoupled weight decay (1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)
    norm_weight_decay: float = Field(default=0.0, ge=0)


OptimizerConfig = Annotated[SGDConfig | AdamWConfig, Field(discriminator="name")]


class ScheduleConfig(Config):
    """How long to train, and how the learning rate moves: linear warm-up, then steps, a curve or nothing down."""

    steps: int = Field(gt=0)
    decay: Literal["multistep", "cosine", "poly", "none"] = "multistep"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """Where ``multistep`` multiplies by ``gamma``, as shares of ``steps``, so that a shorter run keeps its shape."""
    gamma: float = Field(default=0.1, ge=0)
    power: float = Field(default=0.9, gt=0)
    """Of ``poly``: the rate is multiplied by (1 - step / steps) to this power (1606.00915 section 4.1)."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """The share of the learning rate at which ``cosine`` and ``poly`` end."""
    warmup_steps: int = Field(default=1000, ge=0)
    warmup_factor: float = Field(default=1e-3, gt=0, le=1)
    """The share of the learning rate at step 0."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleConfig":
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share <= 1 for share in self.milestones):
            raise ValueError(f"milestones are rising shares of steps in (0, 1]; got {self.milestones}")
        return self

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at ``step``, counted from 0."""
        if self.decay == "cosine":
            factor = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        elif self.decay == "poly":
            factor = self.floor + (1 - self.floor) * (1 - step / self.steps) ** self.power
        elif self.decay == "multistep":
            factor = self.gamma ** sum(step >= round(share * self.steps) for share in self.milestones)
        else:
            factor = 1.0
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            factor *= self.warmup_factor * (1 - progress) + progress
        return factor


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(config: SGDConfig | AdamWConfig, model: nn.Module) -> optim.Optimizer:
    """An optimiser over what is trainable; the parameters of normalisation layers have a decay of their own."""
    norm = [
        parameter
        for module in model.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]
    known = {id(parameter) for parameter in norm}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
    groups = [
        {"params": rest, "weight_decay": config.weight_decay},
        {"params": norm, "weight_decay": config.norm_weight_decay},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(config, SGDConfig):
        return optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return optim.AdamW(groups, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
