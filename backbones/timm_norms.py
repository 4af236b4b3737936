"""Replacing batch norms in timm's models by frozen or synchronized norms with the same names and tensors."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import SyncBatchNorm


def freeze_norms(net: nn.Module) -> nn.Module:
    """Return the network with every batch norm replaced by a norm with fixed statistics and affine weights."""
    from timm.layers.norm_act import freeze_batch_norm_2d

    return freeze_batch_norm_2d(net)


def synchronize_norms(net: nn.Module) -> nn.Module:
    """Replace every batch norm in place by a norm that computes its statistics over all processes."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                parent.add_module(name, _synchronized(child))
    return net


def _synchronized(norm: Any) -> SyncBatchNorm:
    from timm.layers.norm_act import BatchNormAct2d

    result = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    result.weight, result.bias = norm.weight, norm.bias
    result.running_mean, result.running_var = norm.running_mean, norm.running_var
    result.num_batches_tracked = norm.num_batches_tracked
    result.train(norm.training)
    if isinstance(norm, BatchNormAct2d):  # timm's norm with a dropout and an activation
        result.drop, result.act = norm.drop, norm.act
        result.register_forward_hook(_drop_and_activate)
    return result


def _drop_and_activate(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return norm.act(norm.drop(output))
