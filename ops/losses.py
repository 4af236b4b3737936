"""The convention for the outputs of ``Head.loss``: losses to minimize and metrics to log, by name.

A name that begins with ``loss_`` is a scalar; training minimizes the sum of all losses. Any other name is a metric: a
detached 1-D tensor with one value per image or object, whose mean over all images or objects of a step is logged.
Values of NaN are padding, and the mean leaves them out. The tensor may be empty, but a head must return the same names
for every batch, so that the processes of a run agree on them.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LOSS_PREFIX = "loss_"


def split_losses(outputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the outputs of ``Head.loss`` into (losses, metrics)."""
    losses = {name: value for name, value in outputs.items() if name.startswith(LOSS_PREFIX)}
    metrics = {name: value for name, value in outputs.items() if name not in losses}
    return losses, metrics


def total_loss(outputs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Return the sum of the losses among the outputs of ``Head.loss``; raise ValueError if there is no loss."""
    losses, _ = split_losses(outputs)
    if not losses:
        raise ValueError(
            f"a head's loss needs a name that begins with {LOSS_PREFIX!r}, such as 'loss_class'; got {list(outputs)}"
        )
    return torch.stack(list(losses.values())).sum()
