"""Head configs with the conventions of torchvision's detectors, for its pretrained weights."""

from ..ops import RoIAlignConfig
from .box_branch import BoxBranchConfig
from .dense import DenseSelectionConfig
from .fcos import FCOSConfig
from .keypoint_branch import KeypointBranchConfig
from .mask_branch import MaskBranchConfig
from .rcnn import RCNNConfig
from .retinanet import OCTAVE, RetinaNetConfig
from .rpn import RPNConfig


def _pool(size: int) -> RoIAlignConfig:
    return RoIAlignConfig(size=size, sampling_ratio=2, aligned=False, level_epsilon="outside")


def _rpn(convolutions: int = 1) -> RPNConfig:
    return RPNConfig(
        convolutions=convolutions,
        round_anchors=True,
        anchor_stride="grid",
        beta=1 / 9,
        normalizer="sampled",
        post_nms=(2000, 1000),
        min_size=1e-3,
    )


_BOX = BoxBranchConfig(pool=_pool(7), initialization="uniform", background="first", beta=1 / 9, min_size=1e-2)

TORCHVISION = RCNNConfig(rpn=_rpn(), box=_BOX)
"""The head of ``fasterrcnn_resnet50_fpn``, whose number of classes includes the background."""

TORCHVISION_MASK = RCNNConfig(rpn=_rpn(), box=_BOX, mask=MaskBranchConfig(pool=_pool(14), truth="soft", paste="padded"))
"""The head of ``maskrcnn_resnet50_fpn``."""

TORCHVISION_KEYPOINT = RCNNConfig(rpn=_rpn(), box=_BOX, keypoint=KeypointBranchConfig(pool=_pool(14), score="logit"))
"""The head of ``keypointrcnn_resnet50_fpn``. torchvision takes COCO's keypoints to be continuous coordinates: read them
with ``CocoKeypointsConfig(offset=0)``."""

TORCHVISION_V2 = RCNNConfig(
    rpn=_rpn(convolutions=2),
    box=BoxBranchConfig(
        pool=_pool(7),
        convolutions=(256,) * 4,
        norm="batch",
        fc=(1024,),
        initialization="uniform",
        background="first",
        beta=1 / 9,
        min_size=1e-2,
    ),
    mask=MaskBranchConfig(pool=_pool(14), norm="batch", truth="soft", paste="padded"),
)
"""The head of ``maskrcnn_resnet50_fpn_v2``; without its mask branch, that of ``fasterrcnn_resnet50_fpn_v2``. In these
models the backbone and the neck have batch norm, which torchvision's scripts train with ``sync``."""

TORCHVISION_RETINANET = RetinaNetConfig(
    anchor_sizes=tuple(tuple(float(int(size * step)) for step in OCTAVE) for size in (32, 64, 128, 256, 512)),
    round_anchors=True,
    anchor_stride="grid",
    normalizer="image",
    selection=DenseSelectionConfig(max_detections=300),
)
"""The head of ``retinanet_resnet50_fpn`` on levels p3..p7, of which the neck makes p6 and p7 with ``extra="conv"``."""

TORCHVISION_RETINANET_V2 = TORCHVISION_RETINANET.replace(norm="group", box_loss="giou")
"""The head of ``retinanet_resnet50_fpn_v2``; the neck makes p6 and p7 with ``extra="conv_from_input"``."""

TORCHVISION_FCOS = FCOSConfig(points="corner", point_stride="grid")
"""The head of ``fcos_resnet50_fpn``; the neck makes p6 and p7 with ``extra="conv"``."""
