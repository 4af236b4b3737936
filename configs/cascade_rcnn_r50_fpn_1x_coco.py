"""Cascade R-CNN, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/cascade_rcnn_r50_fpn_1x_coco.py

detectron2's recipe: that of `faster_rcnn_r50_fpn_1x_coco` with three stages and 2000 proposals in training. detectron2
publishes box AP 42.1 and mask AP 36.4 on val2017 with a mask branch (`head.mask`), from Caffe2 weights. Not yet run by
us.
"""

from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import CONFIG as FASTER_RCNN
from vertebra.heads import CASCADE, RPNConfig

CONFIG = FASTER_RCNN.replace(
    name="cascade_rcnn_r50_fpn_1x_coco", model={"head": CASCADE.replace(rpn=RPNConfig(post_nms=(2000, 1000)))}
)
