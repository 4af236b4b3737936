"""Exponential moving average (EMA) of the weights, which often scores better than the last weights.

See 1412.6980 section 7.2.
"""

import copy
from typing import NamedTuple

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
        self._tensors: _PairedTensors | None = None

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after step ``step`` (counted from 1).

        The tensors of both models are listed in the first update, and must not be replaced by others later.
        """
        if self._tensors is None or self._tensors.model is not model:
            self._tensors = _PairedTensors.of(self.model, model)
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = self._tensors.floating
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in self._tensors.other_buffers:
            average.copy_(buffer)


class _PairedTensors(NamedTuple):
    """The tensors of an average and of the model it averages."""

    model: nn.Module
    """The model that is averaged."""
    floating: tuple[list[Tensor], list[Tensor]]
    """The floating-point tensors of the average and of the model."""
    other_buffers: list[tuple[Tensor, Tensor]]
    """Pairs of buffers of other types."""

    @classmethod
    def of(cls, average: nn.Module, model: nn.Module) -> "_PairedTensors":
        """List the tensors of an average and its model."""
        buffers = zip(average.buffers(), model.buffers(), strict=True)
        others = [(one, other) for one, other in buffers if not one.is_floating_point()]
        return cls(model, (_floating_tensors(average), _floating_tensors(model)), others)


def _floating_tensors(model: nn.Module) -> list[Tensor]:
    """Return this rank's shards of the floating-point tensors in the state dict; tied weights appear once."""
    tensors = [local_shard(tensor) for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return list({(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}.values())
