"""Faster R-CNN on the dilated last stage of a ResNet-50 (DC5), COCO, 1x schedule (12 epochs).

    python tools/train.py configs/faster_rcnn_r50_dc5_1x_coco.py

detectron2's recipe: that of `faster_rcnn_r50_fpn_1x_coco` without a neck. The last stage is dilated instead of strided.
The RPN and the box branch both read it, with anchors of 32 to 512 pixels at every cell. detectron2 publishes box AP
37.3 on val2017, from Caffe2 weights. Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import CONFIG as FASTER_RCNN
from vertebra.heads import BoxBranchConfig, RCNNConfig, RPNConfig
from vertebra.necks import PassthroughConfig

CONFIG = FASTER_RCNN.replace(
    name="faster_rcnn_r50_dc5_1x_coco",
    model={
        "backbone": ResNetConfig(name="resnet50", levels=("c5",), output_stride=16, norm="frozen", freeze_at=2),
        "neck": PassthroughConfig(),
        "head": RCNNConfig(
            rpn=RPNConfig(
                levels=("c5",), anchor_sizes=((32, 64, 128, 256, 512),), pre_nms=(12_000, 6_000), post_nms=(2000, 1000)
            ),
            box=BoxBranchConfig(levels=("c5",)),
        ),
    },
)
