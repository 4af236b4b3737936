"""Heads for semantic segmentation."""

from .base import AuxiliaryConfig, SemanticConfig, SemanticHead
from .deeplab import TORCHVISION_DEEPLAB, DeepLabConfig, DeepLabHead, LowLevelConfig
from .fcn import TORCHVISION_FCN, FCNConfig, FCNHead
from .losses import SemanticLoss, SemanticLossConfig
from .mmsegmentation import MMSEGMENTATION_DEEPLAB, MMSEGMENTATION_DEEPLAB_PLUS, MMSEGMENTATION_FCN
from .points import PointRefinement, PointRefinementConfig
from .semantic_fpn import SemanticFPNConfig, SemanticFPNHead
from .smp import SMP_DEEPLAB, SMP_DEEPLAB_PLUS, SMP_FPN, SMP_UNET
from .unet import UNetConfig, UNetHead

__all__ = [
    "MMSEGMENTATION_DEEPLAB",
    "MMSEGMENTATION_DEEPLAB_PLUS",
    "MMSEGMENTATION_FCN",
    "SMP_DEEPLAB",
    "SMP_DEEPLAB_PLUS",
    "SMP_FPN",
    "SMP_UNET",
    "TORCHVISION_DEEPLAB",
    "TORCHVISION_FCN",
    "AuxiliaryConfig",
    "DeepLabConfig",
    "DeepLabHead",
    "FCNConfig",
    "FCNHead",
    "LowLevelConfig",
    "PointRefinement",
    "PointRefinementConfig",
    "SemanticConfig",
    "SemanticFPNConfig",
    "SemanticFPNHead",
    "SemanticHead",
    "SemanticLoss",
    "SemanticLossConfig",
    "UNetConfig",
    "UNetHead",
]
