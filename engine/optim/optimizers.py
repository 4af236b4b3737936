"""Optimizers, and the scaling of their learning rate with the batch size."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn, optim

from .parameter_groups import ParameterGroupsConfig, parameter_groups

Decay = Annotated[float, Field(ge=0, lt=1)]


class SGDConfig(ParameterGroupsConfig):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.02, gt=0)
    """Learning rate after the warm-up."""
    lr_batch_size: int | None = Field(default=None, gt=0)
    """The batch size that ``lr`` was chosen for; a run with another batch size scales ``lr`` in proportion (1706.02677
    section 2.1). None: use ``lr`` unscaled."""
    momentum: float = Field(default=0.9, ge=0)
    nesterov: bool = False
    """Use Nesterov momentum, as YOLO models do."""
    weight_decay: float = Field(default=1e-4, ge=0)

    @model_validator(mode="after")
    def _check_nesterov(self) -> "SGDConfig":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum above 0")
        return self


class AdamWConfig(ParameterGroupsConfig):
    """Adam with decoupled weight decay (1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate after the warm-up."""
    lr_batch_size: int | None = Field(default=None, gt=0)
    """The batch size that ``lr`` was chosen for; a run with another batch size scales ``lr`` by the square root of the
    ratio (2205.10287). None: use ``lr`` unscaled."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)


OptimizerConfig = Annotated[SGDConfig | AdamWConfig, Field(discriminator="name")]


def build_optimizer(config: SGDConfig | AdamWConfig, model: nn.Module) -> optim.Optimizer:
    """Return an optimizer over the trainable parameters, in groups that differ in learning rate or weight decay."""
    groups = parameter_groups(config, model)
    optimizer = (
        optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
        if isinstance(config, SGDConfig)
        else optim.AdamW(groups, lr=config.lr, betas=config.betas)
    )
    set_learning_rate(optimizer, config.lr)
    return optimizer


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group to ``lr`` times the group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)


def scaled_learning_rate(config: SGDConfig | AdamWConfig, batch_size: int) -> float:
    """Return the base learning rate of the schedule: ``lr``, scaled from ``lr_batch_size`` to ``batch_size``.

    It is proportional to the batch size for SGD (1706.02677 section 2.1), and to its square root for AdamW
    (2205.10287).
    """
    if config.lr_batch_size is None:
        return config.lr
    ratio = batch_size / config.lr_batch_size
    return config.lr * (ratio if isinstance(config, SGDConfig) else ratio**0.5)


def describe_learning_rate(config: SGDConfig | AdamWConfig, batch_size: int) -> str:
    """Return a line for the log with the learning rate, and how it was scaled with the batch size."""
    if config.lr_batch_size is None:
        return f"learning rate {config.lr:g}, not scaled with the batch size: optimizer.lr_batch_size is not set"
    rule = "in proportion to the batch size" if isinstance(config, SGDConfig) else "by the square root of the ratio"
    return (
        f"learning rate {scaled_learning_rate(config, batch_size):g} for batch size {batch_size}: "
        f"{config.lr:g} for batch size {config.lr_batch_size}, scaled {rule}"
    )
