"""Head configs with the conventions of segmentation_models.pytorch (SMP), for files of its models."""

from .deeplab import DeepLabConfig, LowLevelConfig
from .semantic_fpn import SemanticFPNConfig
from .unet import UNetConfig

SMP_DEEPLAB = DeepLabConfig(dropout=0.5, align_corners=True)
"""The head of ``DeepLabV3``, for a backbone with ``output_stride=8`` and ``dilate_first=True``."""

SMP_DEEPLAB_PLUS = DeepLabConfig(
    # SMP's rates do not depend on the stride, which is 16 here.
    rates=(12, 24, 36),
    dropout=0.5,
    low_level=LowLevelConfig(),
    convolutions=1,
    aspp_convolution=True,
    separable=True,
    depthwise_norm=False,
    align_corners=True,
)
"""The head of ``DeepLabV3Plus``, for a backbone with ``output_stride=16`` and ``dilate_first=True``."""

SMP_FPN = SemanticFPNConfig(align_corners=True)
"""The head of ``FPN``, for the neck ``fpn`` with ``extra="none"`` and ``output_convolutions=False``. SMP has a dropout
before the logits."""

SMP_UNET = UNetConfig(full_resolution=True, logits_kernel=3)
"""The head of ``Unet``, for a backbone with the levels c1..c5."""
