"""Learning rates as a function of the step."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ...structures import Config


class ScheduleConfig(Config):
    """How long to train, and how the learning rate changes: a linear warm-up, and then a decay.

    ``onecycle`` (1708.07120) rises and falls by half a cosine each, and has no other warm-up.
    """

    steps: int = Field(gt=0)
    decay: Literal["multistep", "cosine", "poly", "onecycle", "none"] = "multistep"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """When ``multistep`` multiplies by ``gamma``, as fractions of ``steps``, so that a shorter run keeps its shape."""
    gamma: float = Field(default=0.1, ge=0)
    power: float = Field(default=0.9, gt=0)
    """The exponent of ``poly``, which multiplies the rate by (1 - step / steps) ** power (1606.00915 section 4.1)."""
    peak: float = Field(default=0.3, gt=0, lt=1)
    """The fraction of ``steps`` after which ``onecycle`` reaches the full learning rate."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """The fraction of the learning rate at which ``cosine``, ``poly`` and ``onecycle`` end."""
    warmup_steps: int = Field(default=1000, ge=0)
    warmup_factor: float = Field(default=1e-3, gt=0, le=1)
    """The fraction of the learning rate at step 0; torch's ``OneCycleLR`` begins at 0.04 of it."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleConfig":
        if list(self.milestones) != sorted(self.milestones) or not all(
            0 < fraction <= 1 for fraction in self.milestones
        ):
            raise ValueError(f"milestones are rising fractions of steps in (0, 1]; got {self.milestones}")
        return self

    def factor(self, step: int) -> float:
        """Return the factor that multiplies the learning rate at ``step``, counted from 0."""
        if self.decay == "onecycle":
            return self._cycle(step)
        if self.decay == "cosine":
            factor = _cosine(1.0, self.floor, step / self.steps)
        elif self.decay == "poly":
            factor = self.floor + (1 - self.floor) * (1 - step / self.steps) ** self.power
        elif self.decay == "multistep":
            factor = self.gamma ** sum(step >= round(milestone * self.steps) for milestone in self.milestones)
        else:
            factor = 1.0
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            factor *= self.warmup_factor * (1 - progress) + progress
        return factor

    def warmup_warning(self) -> str | None:
        """Return a warning where the learning rate never reaches its full value; None where it does."""
        if self.decay == "onecycle" or self.warmup_steps < self.steps:
            return None
        highest = max(self.factor(step) for step in range(self.steps))
        return (
            f"WARNING: the warm-up takes {self.warmup_steps} steps and the run has {self.steps}: the learning rate "
            f"gets no higher than {highest:.0%} of its full value; lower recipe.schedule.warmup_steps"
        )

    def _cycle(self, step: int) -> float:
        """Return the factor of ``onecycle``: the last step is at the floor.

        The peak is reached one step before its fraction of the steps is over, as in torch.
        """
        top, last = self.peak * self.steps - 1, self.steps - 1
        if step < top:
            return _cosine(self.warmup_factor, 1.0, step / top)
        return _cosine(1.0, self.floor, (step - top) / (last - top))


def _cosine(start: float, end: float, progress: float) -> float:
    """Return the value of half a period of a cosine from ``start`` to ``end``, at ``progress`` from 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
