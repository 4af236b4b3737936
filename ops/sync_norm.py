"""Batch norm whose statistics are those of all processes' images together."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm as SyncOnDevice
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import get_world_size


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, however unevenly they are shared out: every value weighs the same.

    On a GPU the arithmetic is that of torch's ``nn.SyncBatchNorm``, which has none for a CPU (and which DDP refuses
    there); on a CPU it is written here: it exchanges two sums forward and two backward, and keeps more for the backward
    pass. The gradient is that of the sum of all processes' losses, as with torch's.
    """

    def forward(self, input: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        share = self._share_of_running()
        if input.device.type == "cpu":
            return self._normalize(input, share)
        running = (self.running_mean, self.running_var)
        group = dist.group.WORLD
        return SyncOnDevice.apply(  # pyright: ignore[reportReturnType]
            input, self.weight, self.bias, *running, self.eps, share, group, get_world_size()
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Maps of any number of dimensions will do."""

    def _share_of_running(self) -> float:
        """How far a step moves the running statistics; without a momentum they are the mean of all steps."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _normalize(self, input: Float[Tensor, "b c *d"], share: float) -> Float[Tensor, "b c *d"]:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        column = (-1, *[1] * (input.ndim - 2))
        others = [axis for axis in range(input.ndim) if axis != 1]
        own_count = values.new_tensor([values.numel() // values.shape[1]])
        totals = _sum_over_processes(torch.cat([values.sum(others), own_count]))
        count = totals[-1]
        mean = totals[:-1] / count
        centred = values - mean.reshape(column)
        variance = _sum_over_processes(centred.square().sum(others)) / count
        if self.running_mean is not None and self.running_var is not None:
            unbiased = variance.detach() * count / (count - 1)
            for running, now in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
                running.lerp_(now.to(running.dtype), share)
        normal = centred * (variance + self.eps).rsqrt().reshape(column)
        if self.affine:
            normal = normal * self.weight.reshape(column) + self.bias.reshape(column)
        return normal.to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of what all processes have. What it does to the losses of all comes back to each of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum_over_processes(gradients[0])


def _sum_over_processes(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return _SumOverProcesses.apply(values)  # pyright: ignore[reportReturnType]
