"""Sharded weights with torch's FSDP2: each rank stores a shard, and gathers the others while a layer computes.

In a single process nothing is sharded, and these functions leave tensors and modules unchanged.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ...models import Model
from .context import DistributedContext


def shard_model(model: Model, distributed: DistributedContext) -> None:
    """Shard the model in place with FSDP2: each block of the backbone is one unit, and the rest is another.

    Gradients are averaged over the ranks.
    """
    if distributed.world_size == 1:
        return
    mesh = init_device_mesh(distributed.device.type, (distributed.world_size,))
    for unit in (*blocks(model.backbone), model):
        sharded = fully_shard(unit, mesh=mesh)
        if distributed.device.type == "cpu":
            sharded.set_force_sum_reduction_for_comms(True)  # torch 2.8's gloo gives the sum for the average
    register_fsdp_forward_method(model, "predict")


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the repeated blocks of a network: the outermost members of ``Sequential``s and ``ModuleList``s.

    Members without child modules, such as single convolutions, are not blocks.
    """
    for child in module.children():
        in_sequence = isinstance(module, nn.Sequential | nn.ModuleList)
        is_block = in_sequence and not isinstance(child, nn.Sequential | nn.ModuleList) and any(child.children())
        if is_block:
            yield child
        else:
            yield from blocks(child)


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Gather all weights on every rank inside the block, so that ranks may call the model different numbers of times.

    All ranks must enter the block together.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor, gathered from the shards of all ranks; all ranks must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor; a tensor that is not sharded is returned as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a full tensor, present on every rank, sharded in the same way as ``other``.

    It is returned as it is if ``other`` is not sharded or has another shape.
    """
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
