"""FCOS, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/fcos_r50_fpn_1x_coco.py

The recipe of `retinanet_r50_fpn_1x_coco` with p6 and p7 from p5. Published box AP on val2017: torchvision 39.2,
PaddleDetection 39.6. Not yet run by us.
"""

from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import CONFIG as FASTER_RCNN
from vertebra.engine import SGDConfig
from vertebra.heads import FCOSConfig
from vertebra.necks import FPNConfig

CONFIG = FASTER_RCNN.replace(
    name="fcos_r50_fpn_1x_coco",
    model={"neck": FPNConfig(levels=("c3", "c4", "c5"), extra="conv"), "head": FCOSConfig()},
    recipe={"optimizer": SGDConfig(lr=0.01, lr_batch_size=16)},
    run={"expected_ranges": {}},
)
