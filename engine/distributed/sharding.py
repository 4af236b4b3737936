"""Weights cut into shares: each process keeps its own, and has the others' while a layer is at work (torch's FSDP2).

A run of one process has no shares: everything here leaves its weights as they are.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ...models import Model
from .context import DistributedContext


def shard(model: Model, processes: DistributedContext) -> None:
    """Cut the weights into shares, block by block of the backbone and the rest as one; gradients are averaged."""
    if processes.count == 1:
        return
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for unit in (*blocks(model.backbone), model):
        fully_shard(unit, mesh=mesh)
    register_fsdp_forward_method(model, "predict")


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What a network repeats: the outermost members of its sequences that are made of several layers."""
    for child in module.children():
        in_sequence = isinstance(module, nn.Sequential | nn.ModuleList)
        is_block = in_sequence and not isinstance(child, nn.Sequential | nn.ModuleList) and any(child.children())
        if is_block:
            yield child
        else:
            yield from blocks(child)


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All weights on every process: each may use the model as often as it likes, or never. All enter this together."""
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
    """The tensor whole. All processes call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """What this process has of a tensor in shares."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, in shares as another of its shape is."""
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
