"""Sharded weights: each rank keeps a shard, and has the other shards while a layer computes (torch's FSDP2).

A run of one process has no shards: everything here leaves its weights as they are.
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
    """Shard the weights, block by block of the backbone and the rest as one; gradients are averaged over ranks."""
    if distributed.world_size == 1:
        return
    mesh = init_device_mesh(distributed.device.type, (distributed.world_size,))
    for unit in (*blocks(model.backbone), model):
        fully_shard(unit, mesh=mesh)
    register_fsdp_forward_method(model, "predict")


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks that a network repeats: the outermost members of its sequences that have several layers."""
    for child in module.children():
        in_sequence = isinstance(module, nn.Sequential | nn.ModuleList)
        is_block = in_sequence and not isinstance(child, nn.Sequential | nn.ModuleList) and any(child.children())
        if is_block:
            yield child
        else:
            yield from blocks(child)


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Keep all weights on every rank inside, so that each may use the model as often as it likes, or never.

    All ranks enter this together.
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
    """Return a tensor with the shards of all ranks, which call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a full tensor, which every rank has, sharded as another of its shape is."""
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
