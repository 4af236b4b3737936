"""Head configs with the conventions of MMDetection's detectors, versions 2 and 3, for its pretrained weights."""

from .box_branch import BoxBranchConfig
from .dense import DenseSelectionConfig
from .fcos import FCOSConfig
from .mask_branch import MaskBranchConfig
from .rcnn import RCNNConfig
from .retinanet import RetinaNetConfig
from .rpn import RPNConfig

MMDETECTION = RCNNConfig(rpn=RPNConfig(normalizer="sampled"))
"""The head of ``faster-rcnn_*_fpn``."""

MMDETECTION_MASK = MMDETECTION.replace(mask=MaskBranchConfig())
"""The head of ``mask-rcnn_*_fpn``."""


def _stage(match_threshold: float, center: float, size: float) -> BoxBranchConfig:
    """Return a stage of the cascade, given the standard deviations of the encoded offsets, which are divisors there."""
    weights = (1 / center, 1 / center, 1 / size, 1 / size)
    return BoxBranchConfig(match_threshold=match_threshold, box_weights=weights, beta=1.0, class_agnostic=True)


MMDETECTION_CASCADE = RCNNConfig(
    rpn=RPNConfig(normalizer="sampled", beta=1 / 9, post_nms=(2000, 1000)),
    box=_stage(0.5, 0.1, 0.2),
    cascade=(_stage(0.6, 0.05, 0.1), _stage(0.7, 0.033, 0.067)),
    cascade_scores="logits",
)
"""The head of ``cascade-rcnn_*_fpn``. MMDetection multiplies the losses of its stages by 1, 0.5 and 0.25."""

_HAS_AREA = 1e-9  # MMDetection keeps boxes whose sides are greater than 0

MMDETECTION_RETINANET = RetinaNetConfig(normalizer="batch", selection=DenseSelectionConfig(min_size=_HAS_AREA))
"""The head of ``retinanet_*_fpn`` on levels p3..p7, of which the neck makes p6 and p7 with ``extra="conv_from_input"``
and ``extra_relu=False``."""

MMDETECTION_FCOS = FCOSConfig(
    level_scales=True,
    quality_in="score",
    selection=DenseSelectionConfig(nms_threshold=0.6, min_size=_HAS_AREA),
)
"""The head of ``fcos_*-center-normbbox-centeronreg-giou``; the neck makes p6 and p7 with ``extra="conv"``."""

MMDETECTION_FCOS_V1 = MMDETECTION_FCOS.replace(
    tower_bias=False,
    distances="exponential",
    quality_tower="class",
    center_radius=None,
    selection={"nms_threshold": 0.5},
)
"""The head of the other ``fcos_*_gn-head`` models, which are those of the paper's first version."""
