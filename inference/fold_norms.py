"""Folding of batch norms with fixed statistics into the layers before them.

Which norm follows which layer is observed in a forward pass, so that it works for any network, also a user's. A norm is
folded only if it reads nothing but the output of one layer, and nothing else reads that output.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..backbones.layers import DeformableConv2d

FOLDABLE = (nn.Conv2d, DeformableConv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers into which a norm can be folded, but not their subclasses, which may change their weights in each pass."""


@torch.no_grad()
def fold_norms(network: nn.Module, run: Callable[[], Any]) -> int:
    """Fold the batch norms of a network in evaluation mode into the layers before them; return how many were folded.

    ``run`` calls the network on an example and returns its outputs. The order of the layers is observed in this call;
    layers that are not called are not changed. Scales are computed in float64 and rounded once, so that the outputs
    change by rounding errors only.
    """
    observer = _Observer()
    hooks = [hook for module in network.modules() for hook in observer.observe(module)]
    try:
        with observer:
            observer.note_readers(tree_leaves(run()))
    finally:
        for hook in hooks:
            hook.remove()
    pairs = observer.pairs()
    for layer, norm in pairs.items():
        _fold(layer, norm)
    # timm's norms may contain an activation, which remains.
    replacements = {norm: getattr(norm, "act", nn.Identity()) for norm in pairs.values()}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return len(pairs)


class _Observer(TorchDispatchMode):
    """Records which modules read the output of each layer that can be folded into."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[int, tuple[Tensor, nn.Module]] = {}
        """(output, layer) by the id of the output; the references keep ids from being used again."""
        self.readers: dict[nn.Module, set[nn.Module | None]] = {}
        """The norms that read the outputs of a layer; None stands for any other operation."""
        self.sources: dict[nn.Module, set[nn.Module | None]] = {}
        """The layers whose outputs a norm reads; None stands for any other input."""
        self.active_norm: nn.Module | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note_readers(tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def note_readers(self, values: list[Any]) -> None:
        """Record the norm that is running, if any, as a reader of those values that are outputs of layers."""
        for value in values:
            if id(value) in self.outputs:
                self.readers[self.outputs[id(value)][1]].add(self.active_norm)

    def observe(self, module: nn.Module) -> list[Any]:
        """Add hooks to a module if it is a layer or a norm; return their handles."""
        if module._forward_hooks or module._forward_pre_hooks:
            return []  # a user's hook may change what it reads or returns
        if type(module) in FOLDABLE and not (isinstance(module, nn.ConvTranspose2d) and module.groups > 1):
            return [module.register_forward_hook(self._after_layer)]
        if has_fixed_statistics(module):
            return [
                module.register_forward_pre_hook(self._before_norm),
                module.register_forward_hook(self._after_norm),
            ]
        return []

    def _after_layer(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.outputs[id(output)] = output, layer
        self.readers.setdefault(layer, set())

    def _before_norm(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.active_norm = norm
        _, layer = self.outputs.get(id(inputs[0]), (None, None))
        self.sources.setdefault(norm, set()).add(layer)

    def _after_norm(self, norm: nn.Module, inputs: Any, output: Any) -> None:
        self.active_norm = None

    def pairs(self) -> dict[nn.Module, nn.Module]:
        """Return the norm to fold into each layer."""
        return {
            layer: norm
            for layer, readers in self.readers.items()
            for norm in readers
            if norm is not None and readers == {norm} and self.sources[norm] == {layer}
        }


def has_fixed_statistics(module: nn.Module) -> bool:
    """Return whether a module is a batch norm, of this package, torch, torchvision or timm, with fixed statistics."""
    is_batch_norm = any("BatchNorm" in base.__name__ for base in type(module).__mro__)
    fixed = not module.training or not isinstance(module, nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and fixed and isinstance(getattr(module, "running_mean", None), Tensor)


def _fold(layer: Any, norm: Any) -> None:
    """Scale the weights of a layer as a norm does, and add the norm's shift to the bias, which may be new."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -mean if layer.bias is None else layer.bias.double() - mean
    shift = bias * scale if norm.bias is None else bias * scale + norm.bias.double()
    output_axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [1] * layer.weight.ndim
    shape[output_axis] = -1
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.double() * scale.view(shape)).to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
