"""Learning rates against torch's own schedulers."""

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from vertebra.engine import ScheduleConfig


def rates(scheduler_of, steps: int) -> list[float]:
    """Return the rate that a torch scheduler gives at each step, for a base rate of 1."""
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer)
    rates_by_step = []
    for _ in range(steps):
        rates_by_step.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates_by_step


def test_multistep_equals_torch():
    """Oracle: MultiStepLR at 2/3 and 8/9 of the run, as detectron2's 1x."""
    schedule = ScheduleConfig(steps=90, warmup_steps=0)
    expected = rates(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [60, 80], 0.1), 90)
    assert [schedule.factor(step) for step in range(90)] == pytest.approx(expected)


def test_cosine_equals_torch():
    """Oracle: CosineAnnealingLR to zero."""
    schedule = ScheduleConfig(steps=50, decay="cosine", warmup_steps=0)
    expected = rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 50), 50)
    assert [schedule.factor(step) for step in range(50)] == pytest.approx(expected, abs=1e-12)


def test_poly_equals_torch():
    """Oracle: PolynomialLR of power 0.9."""
    schedule = ScheduleConfig(steps=50, decay="poly", warmup_steps=0)
    expected = rates(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 50, 0.9), 50)
    assert [schedule.factor(step) for step in range(50)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_schedule_ends_at_its_floor(decay):
    """By hand: mmengine's formula of ``eta_min``: (rate - floor) times the curve, plus the floor."""
    plain, floored = (ScheduleConfig(steps=50, decay=decay, warmup_steps=0, floor=floor) for floor in (0.0, 0.01))
    expected = [0.99 * plain.factor(step) + 0.01 for step in range(51)]
    assert [floored.factor(step) for step in range(51)] == pytest.approx(expected)
    assert floored.factor(0) == 1 and floored.factor(50) == pytest.approx(0.01)


def test_warm_up_equals_torch():
    """Oracle: LinearLR from a thousandth, then constant."""
    schedule = ScheduleConfig(steps=40, decay="none", warmup_steps=10, warmup_factor=1e-3)
    expected = rates(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, 10), 40)
    assert [schedule.factor(step) for step in range(40)] == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_decay_after_the_warm_up_equals_torch(decay):
    """Oracle: SequentialLR of LinearLR for 10 steps, then CosineAnnealingLR or PolynomialLR for the other 40."""
    schedule = ScheduleConfig(steps=50, decay=decay, decay_from="warmup", warmup_steps=10, warmup_factor=1e-3)

    def warm_up_then_decay(optimizer):
        falling = {
            "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, 40),
            "poly": lambda: lr_scheduler.PolynomialLR(optimizer, 40, 0.9),
        }
        rising = lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, 10)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling[decay]()], [10])

    expected = rates(warm_up_then_decay, 50)
    assert [schedule.factor(step) for step in range(50)] == pytest.approx(expected, abs=1e-12)
    assert max(map(schedule.factor, range(50))) == schedule.factor(10) == 1


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_decay_from_the_start_equals_the_product(decay):
    """Law: with ``decay_from="start"`` the rate is the product of warm-up and decay, each as if it were alone."""
    values = {"steps": 50, "warmup_factor": 1e-3}
    both = ScheduleConfig(decay=decay, warmup_steps=10, **values)
    falling = ScheduleConfig(decay=decay, warmup_steps=0, **values)
    rising = ScheduleConfig(decay="none", warmup_steps=10, **values)
    assert [both.factor(step) for step in range(50)] == pytest.approx(
        [falling.factor(step) * rising.factor(step) for step in range(50)]
    )


@pytest.mark.parametrize("warmup_steps", [5, 10])
def test_warm_up_may_be_as_long_as_the_run_or_longer(warmup_steps):
    """By hand: a run of 5 steps that the decay would follow has only the rates of the warm-up."""
    schedule = ScheduleConfig(
        steps=5, decay="cosine", decay_from="warmup", warmup_steps=warmup_steps, warmup_factor=1e-9
    )
    expected = [step / warmup_steps for step in range(5)]
    assert [schedule.factor(step) for step in range(5)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("steps", "peak", "floor"), [(50, 0.3, 4e-6), (50, 0.5, 0.01), (7, 0.3, 0.0), (3, 0.1, 0.0)])
def test_one_cycle_equals_torch(steps, peak, floor):
    """Oracle: OneCycleLR with cosine annealing.

    0.3 of 7 steps puts the peak between two steps, 0.1 of 3 before the first.
    """
    schedule = ScheduleConfig(steps=steps, decay="onecycle", peak=peak, floor=floor, warmup_factor=0.04)

    def cycle(optimizer):
        final = 0.04 / floor if floor else float("inf")
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, steps, pct_start=peak, cycle_momentum=False, div_factor=25, final_div_factor=final
        )

    expected = rates(cycle, steps - 1)
    factors = [schedule.factor(step) for step in range(steps)]
    assert factors[:-1] == pytest.approx(expected, abs=1e-12)
    assert factors[-1] == pytest.approx(floor, abs=1e-12)


@pytest.mark.parametrize("milestones", [(0.9, 0.5), (0.0,), (1.2,)])
def test_milestones_must_increase(milestones):
    """By hand: ValueError that says what milestones are."""
    with pytest.raises(ValueError, match="increasing fractions of steps"):
        ScheduleConfig(steps=10, milestones=milestones)
