"""Checking that ResNet weights have the style, PyTorch's or Caffe's, of the network they are loaded into.

Both styles have the same tensors, so that weights of the wrong style load without an error but give useless features.
The style is known for weights that Vertebra wrote (from the file's metadata) and for torchvision's and timm's weights
(PyTorch's); the wrong style is then an error. For any other file the style is estimated from the statistics of the
first norm, and a mismatch gives a warning.

The estimate: the running variance of the first norm is the variance of the first convolution's output on real images.
Divided by the squared norm of the filter, it is the squared scale of the pixels in training. Normalized pixels have a
scale of about 1, Caffe's (0..255 minus a mean) about 58. The median over the filters of published weights is 1 to 4 for
PyTorch's style and 40 for Caffe's. The position of the stride cannot be seen in the tensors, but it is part of the
style.
"""

from collections.abc import Mapping

from torch import Tensor

from ..structures import CheckpointError
from .base import BackboneConfig
from .resnet import ResNetConfig
from .variants import Style

_BOUND = 8.0  # the geometric mean of 1 and 58

_DESCRIPTIONS = {
    "pytorch": "style='pytorch' (RGB pixels 0..1, stride in the 3x3 convolution)",
    "caffe": "style='caffe' (BGR pixels 0..255, stride in the first 1x1 convolution)",
}
_STEM_NORMS = (("conv1.weight", "bn1.running_var"), ("conv1.0.weight", "conv1.1.running_var"))


def check_style(config: BackboneConfig, style: Style | None, source: str) -> None:
    """Raise CheckpointError if the style of the weights is known and differs from that of the ResNet ``config``."""
    if isinstance(config, ResNetConfig) and style is not None and style != config.style:
        raise CheckpointError(
            f"these weights were trained with {_DESCRIPTIONS[style]}, but the backbone has style={config.style!r}",
            f"build it with style={style!r}, or choose other weights",
            file=source,
        )


def style_warning(config: BackboneConfig, tensors: Mapping[str, Tensor]) -> str:
    """Return a warning if weights of unknown style seem to have the other style than ``config``; otherwise ``""``."""
    if not isinstance(config, ResNetConfig):
        return ""
    guess = guess_style(tensors)
    if guess is None or guess == config.style:
        return ""
    return (
        f"WARNING: loaded as {_DESCRIPTIONS[config.style]}, but the statistics of the first norm indicate "
        f"{_DESCRIPTIONS[guess]}: if that is right, build the backbone with style={guess!r}"
    )


def guess_style(tensors: Mapping[str, Tensor]) -> Style | None:
    """Estimate the style of a ResNet's weights from the first norm; None if it has no running statistics."""
    for weight_name, variance_name in _STEM_NORMS:
        if weight_name in tensors and variance_name in tensors:
            filters, variance = tensors[weight_name].double().flatten(1), tensors[variance_name].double()
            scale = (variance / filters.square().sum(dim=1).clamp(min=1e-12)).sqrt().median()
            return "caffe" if scale > _BOUND else "pytorch"
    return None
