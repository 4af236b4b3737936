"""The convention for what ``Head.loss`` returns: losses, and numbers to watch beside them.

A name that begins with ``loss_`` is a scalar that training minimizes, in the sum with the others. Any other name is a
number to watch: a detached 1-D tensor with a value for each image or object, of which the mean over everything that a
step saw is logged. It may be empty, but a head returns the same names for every batch, so that the processes of a run
agree on them.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LOSS_PREFIX = "loss_"


def split_losses(outputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the losses, and the numbers to watch, of what ``Head.loss`` returned."""
    losses = {name: value for name, value in outputs.items() if name.startswith(LOSS_PREFIX)}
    metrics = {name: value for name, value in outputs.items() if name not in losses}
    return losses, metrics


def total_loss(outputs: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Return the sum of the losses of what ``Head.loss`` returned: what training minimizes."""
    losses, _ = split_losses(outputs)
    if not losses:
        raise ValueError(
            f"a head's loss needs a name that begins with {LOSS_PREFIX!r}, such as 'loss_class'; got {list(outputs)}"
        )
    return torch.stack(list(losses.values())).sum()
