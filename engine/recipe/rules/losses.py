"""Rules for how an R-CNN learns from few steps: its first outputs and its box losses.

The defaults of the heads are detectron2's, which are made for 90,000 steps. The figures are AP, AP50 and AP75 of a
Faster R-CNN with an ImageNet backbone after 156 steps of 4 images of BCCD at 192 pixels, each of one run with one seed:

- with detectron2's defaults 38.6, 75.5 and 35.4;
- with wider first outputs of the box branch 48.6, 86.9 and 46.6;
- also with torchvision's beta and a cosine that begins after the warm-up 50.2, 87.7 and 50.3, or 51.4, 86.5 and 56.5
  if the fully connected layers start as torchvision's too.

Beta and the cosine were measured only together. torchvision's own parts with this backbone reach 49.9, 85.5 and 53.5.
"""

from collections.abc import Iterable

from ...config import ExperimentConfig
from ..choices import Choice, get_field, has_field
from ..facts import DataFacts

SMOOTH = 1 / 9
"""torchvision's beta of smooth L1."""


def smooth_box_losses(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Make the box losses of an R-CNN smooth near zero if only its backbone is pretrained.

    A model that was trained as a whole, and one whose losses are smooth already, keep their losses.
    """
    for field in ("model.head.rpn.beta", "model.head.box.beta"):
        if config.model.start_from is None and get_field(config, field) == 0:
            yield Choice(field, SMOOTH, "with torchvision's smooth L1 and the cosine, AP75 on BCCD was 3.7 higher")


def widen_first_outputs(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Start the outputs of an R-CNN's box branch from wider weights if only its backbone is pretrained.

    torchvision's initial weights are uniform within one over the square root of the number of inputs.
    """
    field = "model.head.box.initialization"
    if config.model.start_from is None and has_field(config, field):
        yield Choice(
            field, "uniform", "with torchvision's initial outputs, AP on BCCD was 3 to 10 higher after 156 steps"
        )
