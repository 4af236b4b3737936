"""Floor 4: pyramid -> losses or predictions. The imports below fill the registry."""

from .base import Head, heads
from .box_branch import BoxBranch, BoxBranchConfig, PaddedDetections, RegionSamples
from .classification import ClassificationConfig, ClassificationHead
from .mask_branch import MaskBranch, MaskBranchConfig
from .rcnn import TORCHVISION, RCNNConfig, RCNNHead
from .rpn import RPN, Proposals, RPNConfig

__all__ = [
    "RPN",
    "TORCHVISION",
    "BoxBranch",
    "BoxBranchConfig",
    "ClassificationConfig",
    "ClassificationHead",
    "Head",
    "MaskBranch",
    "MaskBranchConfig",
    "PaddedDetections",
    "Proposals",
    "RCNNConfig",
    "RCNNHead",
    "RPNConfig",
    "RegionSamples",
    "heads",
]
