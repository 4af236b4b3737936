"""Exponential moving average (EMA) of the weights, which often scores better than the last weights.

See 1412.6980 section 7.2.
"""

import copy

import torch
from torch import Tensor, nn

from ...models import Model
from ..distributed.sharding import local_shard


class ModelEMA:
    """A copy of the model with averaged weights: ``average = decay * average + (1 - decay) * weights`` after each step.

    Floating-point buffers, such as batch norm statistics, are averaged too; other buffers are copied. The decay is at
    most (1 + step) / (10 + step), as in TensorFlow's ``ExponentialMovingAverage``, so that the initial weights are soon
    forgotten.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after step ``step`` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = _floating_tensors(self.model), _floating_tensors(model)
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(buffer)


def _floating_tensors(model: nn.Module) -> list[Tensor]:
    """Return this rank's shards of the floating-point tensors in the state dict; tied weights appear once."""
    tensors = [local_shard(tensor) for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return list({(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}.values())
