"""Rules for evaluations during the training, and for its early end."""

import math
from collections.abc import Iterable

from ...config import ExperimentConfig
from ..choices import Choice
from ..facts import DataFacts

MOST_EVALUATIONS = 10
EVALUATED_FRACTION = 0.25
"""At most this many images are evaluated per image that is trained on."""


def choose_evaluations(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Evaluate up to ten times, more rarely if that would take long, and end early without improvement in half."""
    steps = config.recipe.schedule.steps
    trained = steps * config.recipe.batch_size
    count = max(1, min(MOST_EVALUATIONS, math.floor(trained * EVALUATED_FRACTION / facts.val_images)))
    every = math.ceil(steps / count)
    yield Choice("evaluation.every", every, f"evaluating {facts.val_images} images {count} times takes little time")


def stop_early(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """End the training if half of its evaluations bring no better score."""
    every = config.evaluation.every
    count = config.recipe.schedule.steps // every if every else 0
    if count >= 4:
        patience = math.ceil(count / 2)
        yield Choice("evaluation.patience", patience, f"half of the {count} evaluations without a better score suffice")


def save_checkpoints(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Save a checkpoint as often as the model is evaluated, but at least once per 1000 steps."""
    every = config.evaluation.every or config.recipe.schedule.steps
    yield Choice("run.checkpoint_every", min(every, 1000), "an interrupted run then repeats little")
