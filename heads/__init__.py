"""Heads: modules that turn feature maps into losses or predictions (layer 4).

Importing this package registers the built-in heads in ``HEADS``.
"""

from .arcface import COSFACE, ArcFaceConfig, ArcFaceHead, add_margin
from .base import (
    HEADS,
    Head,
    HeadConfig,
    LearnsKeypoints,
    LearnsMasks,
    predicted_tasks_of_head,
    required_keypoints,
    required_mask_format,
    target_task_of_head,
    task_of_head,
)
from .box_branch import BoxBranch, BoxBranchConfig, BoxOutput
from .class_rows import ClassRows, class_columns_by_tensor, class_rows_by_tensor
from .classification import ClassificationConfig, ClassificationHead
from .dense import DenseSelectionConfig
from .fcos import FCOSConfig, FCOSHead
from .keypoint_branch import KeypointBranch, KeypointBranchConfig
from .mask_branch import MaskBranch, MaskBranchConfig
from .mmdetection import (
    MMDETECTION,
    MMDETECTION_CASCADE,
    MMDETECTION_FCOS,
    MMDETECTION_FCOS_V1,
    MMDETECTION_MASK,
    MMDETECTION_RETINANET,
)
from .multi_head import MultiHead, MultiHeadConfig
from .panoptic_fpn import PanopticFPNConfig, PanopticFPNHead
from .point_head import PointHead, PointHeadConfig
from .point_rend import PointRendBranch, PointRendBranchConfig
from .rcnn import CASCADE, RCNNConfig, RCNNHead
from .regions import Proposals, RegionBranch, RegionBranchConfig, RegionPooler, RegionSamples
from .retinanet import RetinaNetConfig, RetinaNetHead
from .rpn import RPN, RPNConfig, proposal_recall
from .semantic import (
    MMSEGMENTATION_DEEPLAB,
    MMSEGMENTATION_DEEPLAB_PLUS,
    MMSEGMENTATION_FCN,
    SMP_DEEPLAB,
    SMP_DEEPLAB_PLUS,
    SMP_FPN,
    TORCHVISION_DEEPLAB,
    TORCHVISION_FCN,
    AuxiliaryConfig,
    DeepLabConfig,
    DeepLabHead,
    FCNConfig,
    FCNHead,
    LowLevelConfig,
    PointRefinement,
    PointRefinementConfig,
    SemanticConfig,
    SemanticFPNConfig,
    SemanticFPNHead,
    SemanticHead,
    SemanticLoss,
    SemanticLossConfig,
    UNetConfig,
    UNetHead,
)
from .torchvision import (
    TORCHVISION,
    TORCHVISION_FCOS,
    TORCHVISION_KEYPOINT,
    TORCHVISION_MASK,
    TORCHVISION_RETINANET,
    TORCHVISION_RETINANET_V2,
    TORCHVISION_V2,
)
from .yolox import YOLOXConfig, YOLOXHead

__all__ = [
    "CASCADE",
    "COSFACE",
    "HEADS",
    "MMDETECTION",
    "MMDETECTION_CASCADE",
    "MMDETECTION_FCOS",
    "MMDETECTION_FCOS_V1",
    "MMDETECTION_MASK",
    "MMDETECTION_RETINANET",
    "MMSEGMENTATION_DEEPLAB",
    "MMSEGMENTATION_DEEPLAB_PLUS",
    "MMSEGMENTATION_FCN",
    "RPN",
    "SMP_DEEPLAB",
    "SMP_DEEPLAB_PLUS",
    "SMP_FPN",
    "TORCHVISION",
    "TORCHVISION_DEEPLAB",
    "TORCHVISION_FCN",
    "TORCHVISION_FCOS",
    "TORCHVISION_KEYPOINT",
    "TORCHVISION_MASK",
    "TORCHVISION_RETINANET",
    "TORCHVISION_RETINANET_V2",
    "TORCHVISION_V2",
    "ArcFaceConfig",
    "ArcFaceHead",
    "AuxiliaryConfig",
    "BoxBranch",
    "BoxBranchConfig",
    "BoxOutput",
    "ClassRows",
    "ClassificationConfig",
    "ClassificationHead",
    "DeepLabConfig",
    "DeepLabHead",
    "DenseSelectionConfig",
    "FCNConfig",
    "FCNHead",
    "FCOSConfig",
    "FCOSHead",
    "Head",
    "HeadConfig",
    "KeypointBranch",
    "KeypointBranchConfig",
    "LearnsKeypoints",
    "LearnsMasks",
    "LowLevelConfig",
    "MaskBranch",
    "MaskBranchConfig",
    "MultiHead",
    "MultiHeadConfig",
    "PanopticFPNConfig",
    "PanopticFPNHead",
    "PointHead",
    "PointHeadConfig",
    "PointRefinement",
    "PointRefinementConfig",
    "PointRendBranch",
    "PointRendBranchConfig",
    "Proposals",
    "RCNNConfig",
    "RCNNHead",
    "RPNConfig",
    "RegionBranch",
    "RegionBranchConfig",
    "RegionPooler",
    "RegionSamples",
    "RetinaNetConfig",
    "RetinaNetHead",
    "SemanticConfig",
    "SemanticFPNConfig",
    "SemanticFPNHead",
    "SemanticHead",
    "SemanticLoss",
    "SemanticLossConfig",
    "UNetConfig",
    "UNetHead",
    "YOLOXConfig",
    "YOLOXHead",
    "add_margin",
    "class_columns_by_tensor",
    "class_rows_by_tensor",
    "predicted_tasks_of_head",
    "proposal_recall",
    "required_keypoints",
    "required_mask_format",
    "target_task_of_head",
    "task_of_head",
]
