"""Learning-rate schedules."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ...structures import Config


class ScheduleConfig(Config):
    """The number of training steps, and the learning-rate schedule: a linear warm-up, then a decay.

    ``onecycle`` (1708.07120) rises and falls along half a cosine each; ``warmup_steps`` does not apply to it.
    """

    steps: int = Field(gt=0)
    """Total number of training steps."""
    decay: Literal["multistep", "cosine", "poly", "onecycle", "none"] = "multistep"
    """Shape of the learning-rate decay after the warm-up."""
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """When ``multistep`` multiplies the learning rate by ``gamma``, as fractions of ``steps``."""
    gamma: float = Field(default=0.1, ge=0)
    """Factor of ``multistep`` at each milestone."""
    power: float = Field(default=0.9, gt=0)
    """Exponent of ``poly``, which multiplies the learning rate by (1 - step / steps) ** power (1606.00915 section
    4.1)."""
    decay_from: Literal["start", "warmup"] = "start"
    """Where ``cosine`` and ``poly`` begin: at the ``start`` of the run, so that the warm-up rises to a rate that has
    already fallen (detectron2, timm), or at the end of the ``warmup``, where the rate is the full one (Hugging Face,
    mmdetection). The difference matters if the warm-up is a large part of the run."""
    peak: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of ``steps`` after which ``onecycle`` reaches the full learning rate."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Final learning rate of ``cosine``, ``poly`` and ``onecycle``, as a fraction of the full rate."""
    warmup_steps: int = Field(default=1000, ge=0)
    """Steps of linear warm-up; 0: no warm-up."""
    warmup_factor: float = Field(default=1e-3, gt=0, le=1)
    """Learning rate at step 0, as a fraction of the full rate; also for ``onecycle`` (torch's ``OneCycleLR`` starts at
    0.04)."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleConfig":
        if list(self.milestones) != sorted(self.milestones) or not all(
            0 < fraction <= 1 for fraction in self.milestones
        ):
            raise ValueError(f"milestones must be increasing fractions of steps in (0, 1]; got {self.milestones}")
        return self

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at ``step``, counted from 0."""
        if self.decay == "onecycle":
            return self._cycle(step)
        if self.decay == "cosine":
            factor = _cosine(1.0, self.floor, self._progress(step))
        elif self.decay == "poly":
            factor = self.floor + (1 - self.floor) * (1 - self._progress(step)) ** self.power
        elif self.decay == "multistep":
            factor = self.gamma ** sum(step >= round(milestone * self.steps) for milestone in self.milestones)
        else:
            factor = 1.0
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            factor *= self.warmup_factor * (1 - progress) + progress
        return factor

    def _progress(self, step: int) -> float:
        """Return the fraction of the decay that is over at ``step``, from 0 to 1."""
        first = min(self.warmup_steps, self.steps - 1) if self.decay_from == "warmup" else 0
        return max(0, step - first) / (self.steps - first)

    def warmup_warning(self) -> str | None:
        """Return a warning if the warm-up is longer than the run, so that the full rate is never reached; else None."""
        if self.decay == "onecycle" or self.warmup_steps < self.steps:
            return None
        highest = max(self.factor(step) for step in range(self.steps))
        return (
            f"WARNING: the warm-up takes {self.warmup_steps} steps, but the run has only {self.steps}: the learning "
            f"rate reaches only {highest:.0%} of its full value; lower recipe.schedule.warmup_steps"
        )

    def _cycle(self, step: int) -> float:
        """Return the factor of ``onecycle`` at ``step``; the last step is at ``floor``.

        As in torch's ``OneCycleLR``, the peak is at step ``peak * steps - 1``.
        """
        top, last = self.peak * self.steps - 1, self.steps - 1
        if step < top:
            return _cosine(self.warmup_factor, 1.0, step / top)
        return _cosine(1.0, self.floor, (step - top) / (last - top))


def _cosine(start: float, end: float, progress: float) -> float:
    """Return the value at ``progress`` (0 to 1) on the half cosine from ``start`` to ``end``."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
