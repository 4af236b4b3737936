"""Batch norm with statistics over the images of all processes."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm as SyncBatchNormOnGPU
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import all_reduce_sum, get_world_size


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes; every value has the same weight, also if batch sizes differ.

    On a GPU it runs the kernels of torch's ``nn.SyncBatchNorm``, which does not support CPUs (DDP refuses it there).
    The CPU implementation here exchanges two sums in the forward and two in the backward pass, and saves more
    activations. As in torch, the gradient is that of the sum of the losses of all processes.
    """

    def forward(self, input: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        momentum = self._count_batch()
        if input.device.type == "cpu":
            return self._normalize(input, momentum)
        running = (self.running_mean, self.running_var)
        group = dist.group.WORLD
        return SyncBatchNormOnGPU.apply(  # pyright: ignore[reportReturnType]
            input, self.weight, self.bias, *running, self.eps, momentum, group, get_world_size()
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept inputs of any number of dimensions."""

    def _count_batch(self) -> float:
        """Count this step and return its momentum for the running statistics; None averages all steps equally."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _normalize(self, input: Float[Tensor, "b c *d"], momentum: float) -> Float[Tensor, "b c *d"]:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        per_channel = (-1, *[1] * (input.ndim - 2))
        reduced_dims = [dim for dim in range(input.ndim) if dim != 1]
        local_count = values.new_tensor([values.numel() // values.shape[1]])
        totals = all_reduce_sum(torch.cat([values.sum(reduced_dims), local_count]))
        count = totals[-1]
        mean = totals[:-1] / count
        centered = values - mean.reshape(per_channel)
        variance = all_reduce_sum(centered.square().sum(reduced_dims)) / count
        if self.running_mean is not None and self.running_var is not None:
            unbiased = variance.detach() * count / (count - 1)
            for running, current in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
                running.lerp_(current.to(running.dtype), momentum)
        normal = centered * (variance + self.eps).rsqrt().reshape(per_channel)
        if self.affine:
            normal = normal * self.weight.reshape(per_channel) + self.bias.reshape(per_channel)
        return normal.to(input.dtype)
