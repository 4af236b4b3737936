"""Whether a training is on track: its numbers against the bands that the experiment states."""

from collections.abc import Mapping

from ...structures import suggest
from ..config import ExperimentConfig

TOO_HIGH = "the learning rate may be too high for the batch, the first weights others, or the labels another image's"
TOO_LOW = "truth may be missing from the data, or the images be all alike"


def range_warnings(config: ExperimentConfig, step: int, means: Mapping[str, float]) -> list[str]:
    """A line for each number outside its band, at the first logged step from ``expected_from_step`` on."""
    if (
        not means
        or step < config.run.expected_from_step
        or any(map(config.is_logged, range(config.run.expected_from_step, step)))
    ):
        return []
    lines = []
    for name, (low, high) in config.run.expected_ranges.items():
        if name not in means:
            lines.append(f"WARNING: the band of {name!r} is of nothing that is logged: {suggest(name, means)}")
        elif not low <= (value := means[name]) <= high:
            meaning = TOO_HIGH if value > high else TOO_LOW
            lines.append(f"WARNING: {name} is {value:.3g} by step {step}, and expected from {low} to {high}: {meaning}")
    return lines
