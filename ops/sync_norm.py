"""Batch norm whose statistics are those of all processes' images together."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from .processes import process_count


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's, which refuses tensors on a CPU while several processes train; here it takes them.

    The arithmetic on a CPU is that of batch norm over the images of all processes, however unevenly they are shared
    out: every value weighs the same. It exchanges two sums forward and two backward, and keeps more for the backward
    pass than torch's kernels on a GPU do. Losses of all processes are summed by the gradient, as torch's norm has it.
    """

    def forward(self, input: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        if not self.training or input.device.type != "cpu" or process_count() == 1:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = [axis for axis in range(input.ndim) if axis != 1]
        own_count = values.new_tensor([values.numel() // values.shape[1]])
        totals = _sum_over_processes(torch.cat([values.sum(others), own_count]))
        count = totals[-1]
        mean = totals[:-1] / count
        centred = values - _column(mean, input)
        variance = _sum_over_processes(centred.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * _column((variance + self.eps).rsqrt(), input)
        if self.affine:
            normal = normal * _column(self.weight, input) + _column(self.bias, input)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
        """Move the running statistics, as batch norm does: the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _column(values: Float[Tensor, " c"], like: Float[Tensor, "b c *d"]) -> Float[Tensor, "1 c *_"]:
    """One number for each channel, in the shape that goes with a map's."""
    return values.reshape(1, -1, *[1] * (like.ndim - 2))


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
