"""RetinaNet."""

from vertebra.configs.faster_rcnn_r50_fpn_bccd_cpu import CONFIG as FASTER_RCNN
from vertebra.heads import RetinaNetConfig
from vertebra.necks import FPNConfig

STRIDES = (8, 16, 32, 64)
CONFIG = FASTER_RCNN.replace(
    name="retinanet_r50_fpn_bccd_cpu",
    model={
        "neck": FPNConfig(channels=96, levels=("c3", "c4"), extra="conv"),
        "head": RetinaNetConfig(
            convolutions=2,
            norm="group",
            anchor_sizes=tuple((2 * s, 2.52 * s, 3.17 * s) for s in STRIDES),
            box_loss="giou",
        ),
    },
)
