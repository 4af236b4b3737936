"""Batch norm with the statistics of all processes' images together."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm as SyncBatchNormOnGPU
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import all_reduce_sum, get_world_size


class SyncBatchNorm(_BatchNorm):
    """Normalize over the images of all processes, however unevenly these are divided: every value weighs the same.

    On a GPU the arithmetic is that of torch's ``nn.SyncBatchNorm``, which has none for a CPU (and which DDP refuses
    there). On a CPU it is written here: it exchanges two sums forward and two backward, and keeps more for the backward
    pass. The gradient is that of the sum of all processes' losses, as with torch's.
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
        """Accept maps of any number of dimensions."""

    def _count_batch(self) -> float:
        """Return how far this step moves the running statistics; without a momentum they are the mean of all steps."""
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
