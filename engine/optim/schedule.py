"""Learning rates as a function of the step."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ...structures import Config


class ScheduleConfig(Config):
    """How long to train, and how the learning rate moves: linear warm-up, then steps, a curve or nothing down.

    ``onecycle`` (1708.07120) rises and falls by half a cosine each, and has no other warm-up.
    """

    steps: int = Field(gt=0)
    decay: Literal["multistep", "cosine", "poly", "onecycle", "none"] = "multistep"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """Where ``multistep`` multiplies by ``gamma``, as shares of ``steps``, so that a shorter run keeps its shape."""
    gamma: float = Field(default=0.1, ge=0)
    power: float = Field(default=0.9, gt=0)
    """Of ``poly``: the rate is multiplied by (1 - step / steps) to this power (1606.00915 section 4.1)."""
    peak: float = Field(default=0.3, gt=0, lt=1)
    """The share of ``steps`` after which ``onecycle`` is at the learning rate itself."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """The share of the learning rate at which ``cosine``, ``poly`` and ``onecycle`` end."""
    warmup_steps: int = Field(default=1000, ge=0)
    warmup_factor: float = Field(default=1e-3, gt=0, le=1)
    """The share of the learning rate at step 0; torch's ``OneCycleLR`` begins at 0.04 of it."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> "ScheduleConfig":
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share <= 1 for share in self.milestones):
            raise ValueError(f"milestones are rising shares of steps in (0, 1]; got {self.milestones}")
        return self

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at ``step``, counted from 0."""
        if self.decay == "onecycle":
            return self._cycle(step)
        if self.decay == "cosine":
            factor = _cosine(1.0, self.floor, step / self.steps)
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

    def _cycle(self, step: int) -> float:
        """The last step is at the floor and, as in torch, the peak one step before its share of them is over."""
        top, last = self.peak * self.steps - 1, self.steps - 1
        if step < top:
            return _cosine(self.warmup_factor, 1.0, step / top)
        return _cosine(1.0, self.floor, (step - top) / (last - top))


def _cosine(start: float, end: float, progress: float) -> float:
    """Half a period of a cosine from ``start`` to ``end``."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
