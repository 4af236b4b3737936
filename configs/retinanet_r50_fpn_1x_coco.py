"""RetinaNet, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/retinanet_r50_fpn_1x_coco.py

detectron2's recipe: that of `faster_rcnn_r50_fpn_1x_coco` with half its learning rate, levels p3..p7, and p6 and p7
from c5. detectron2 publishes box AP 37.4 on val2017, from Caffe2 weights. Not yet run by us.
"""

from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import CONFIG as FASTER_RCNN
from vertebra.engine import SGDConfig
from vertebra.heads import RetinaNetConfig
from vertebra.necks import FPNConfig

CONFIG = FASTER_RCNN.replace(
    name="retinanet_r50_fpn_1x_coco",
    model={"neck": FPNConfig(levels=("c3", "c4", "c5"), extra="conv_from_input"), "head": RetinaNetConfig()},
    recipe={"optimizer": SGDConfig(lr=0.01, lr_batch_size=16)},
    run={"expected_ranges": {}},
)
