"""The learning rate that goes with a batch size."""

from ..config import ExperimentConfig
from .optimizers import SGDConfig


def scaled_learning_rate(config: ExperimentConfig) -> float:
    """What the schedule multiplies: ``lr``, scaled from the batch size that it was chosen for to the run's own.

    SGD's grows with the batch (1706.02677 section 2.1), AdamW's with its square root (2205.10287).
    """
    optimizer = config.recipe.optimizer
    if optimizer.lr_batch_size is None:
        return optimizer.lr
    ratio = config.recipe.batch_size / optimizer.lr_batch_size
    return optimizer.lr * (ratio if isinstance(optimizer, SGDConfig) else ratio**0.5)


def describe_learning_rate(config: ExperimentConfig) -> str:
    """Return a line with the learning rate, and the rule by which it follows the batch size."""
    optimizer = config.recipe.optimizer
    if optimizer.lr_batch_size is None:
        return f"learning rate {optimizer.lr:g}, whatever the batch size: optimizer.lr_batch_size is not set"
    rule = "in proportion to" if isinstance(optimizer, SGDConfig) else "by the square root of"
    return (
        f"learning rate {scaled_learning_rate(config):g} for {config.recipe.batch_size} images a step: "
        f"{optimizer.lr:g} for {optimizer.lr_batch_size}, scaled {rule} the batch"
    )


def warmup_warning(config: ExperimentConfig) -> str | None:
    """Return a warning where the learning rate never reaches its full value; None where it does."""
    schedule = config.recipe.schedule
    if schedule.decay == "onecycle" or schedule.warmup_steps < schedule.steps:
        return None
    highest = max(schedule.factor(step) for step in range(schedule.steps))
    return (
        f"WARNING: the warm-up takes {schedule.warmup_steps} steps and the run has {schedule.steps}: the learning rate "
        f"gets no higher than {highest:.0%} of its full value; lower recipe.schedule.warmup_steps"
    )
