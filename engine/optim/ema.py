"""A moving average of the weights (1412.6980 section 7.2 averages so), which often scores better than the last ones."""

import copy

import torch
from torch import Tensor, nn

from ...models import Model
from ..distributed.sharding import local_shard


class ModelEMA:
    """``average = decay * average + (1 - decay) * weights`` after each step; statistics of norms are averaged too.

    Early on the decay is no more than (1 + step) / (10 + step), so that the first weights are soon forgotten
    (TensorFlow's ``ExponentialMovingAverage``).
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step ``step``, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = _floating_tensors(self.model), _floating_tensors(model)
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(buffer)


def _floating_tensors(model: nn.Module) -> list[Tensor]:
    """Return the floating-point tensors of a state dict, tied ones once, in a rank's shards."""
    tensors = [local_shard(tensor) for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return list({(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}.values())
