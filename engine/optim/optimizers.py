"""Optimisers, and the learning rate that each of their groups has."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn, optim

from .parameter_groups import ParameterGroupsConfig, parameter_groups

Decay = Annotated[float, Field(ge=0, lt=1)]


class SGDConfig(ParameterGroupsConfig):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.02, gt=0)
    lr_batch_size: int | None = Field(default=None, gt=0)
    """The batch size that ``lr`` was chosen for: that of the run scales it in proportion (1706.02677). None: ``lr`` as
    it is."""
    momentum: float = Field(default=0.9, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class AdamWConfig(ParameterGroupsConfig):
    """Adam with decoupled weight decay (1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    lr_batch_size: int | None = Field(default=None, gt=0)
    """The batch size that ``lr`` was chosen for: that of the run scales it by the square root (2205.10287). None:
    ``lr`` as it is."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)


OptimizerConfig = Annotated[SGDConfig | AdamWConfig, Field(discriminator="name")]


def build_optimizer(config: SGDConfig | AdamWConfig, model: nn.Module) -> optim.Optimizer:
    """An optimiser over what is trainable, in groups that differ in rate or decay."""
    groups = parameter_groups(config, model)
    optimizer = (
        optim.SGD(groups, lr=config.lr, momentum=config.momentum)
        if isinstance(config, SGDConfig)
        else optim.AdamW(groups, lr=config.lr, betas=config.betas)
    )
    set_learning_rate(optimizer, config.lr)
    return optimizer


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group this learning rate, times the multiplier that is its own."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)
