"""Whether weights were trained in the style that a ResNet is built in: PyTorch's or Caffe's.

Both styles have the same tensors, so that weights of the wrong one load, and then compute nothing sensible. The style
is known of weights that Vertebra wrote (it is in the file's metadata) and of torchvision's and timm's (PyTorch's):
the wrong one is refused. Of any other file it is guessed from the statistics of the first norm, and a doubt is told.

The guess: the norm's running variance is that of the first convolution's output for real images. Divided by the
squared norm of the filter it gives the squared scale of the pixels that the network saw. Normalised pixels have a
scale of about 1; Caffe's, 0..255 less a mean, of about 58. The median over the filters of real weights is 1 to 4 for
PyTorch's and 40 for Caffe's. Where the stride is cannot be told from the tensors, but it goes with the pixels.
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
    """Raise CheckpointError where the source of weights states a style other than that of the ResNet ``config``."""
    if isinstance(config, ResNetConfig) and style is not None and style != config.style:
        raise CheckpointError(
            f"these weights were trained with {_DESCRIPTIONS[style]}, and the backbone is built with "
            f"style={config.style!r}",
            f"build it with style={style!r}, or take other weights",
            file=source,
        )


def style_warning(config: BackboneConfig, tensors: Mapping[str, Tensor]) -> str:
    """Return a warning where weights of unknown style look as if they had the other one; else an empty text."""
    if not isinstance(config, ResNetConfig):
        return ""
    guess = guess_style(tensors)
    if guess is None or guess == config.style:
        return ""
    return (
        f"WARNING: read as {_DESCRIPTIONS[config.style]}, but the first norm's statistics are those of "
        f"{_DESCRIPTIONS[guess]}: if the file is, build the backbone with style={guess!r}"
    )


def guess_style(tensors: Mapping[str, Tensor]) -> Style | None:
    """Estimate the style of a ResNet's weights from its first norm; None where that has no running statistics."""
    for weight_name, variance_name in _STEM_NORMS:
        if weight_name in tensors and variance_name in tensors:
            filters, variance = tensors[weight_name].double().flatten(1), tensors[variance_name].double()
            scale = (variance / filters.square().sum(dim=1).clamp(min=1e-12)).sqrt().median()
            return "caffe" if scale > _BOUND else "pytorch"
    return None
