"""PointRend (1912.08193) on Mask R-CNN, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/point_rend_r50_fpn_1x_coco.py

detectron2's recipe: that of `mask_rcnn_r50_fpn_1x_coco` with PointRend's mask branch, which predicts masks of 224x224
and is trained on bitmaps and refined boxes. detectron2 publishes mask AP 36.2 on val2017, and 39.7 if evaluated with
the more precise masks of LVIS, from Caffe2 weights. Not yet run by us.
"""

from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import CONFIG as MASK_RCNN
from vertebra.heads import PointRendBranchConfig, RCNNConfig

CONFIG = MASK_RCNN.replace(
    name="point_rend_r50_fpn_1x_coco",
    model={"head": RCNNConfig(point_rend=PointRendBranchConfig(), branch_boxes="refined")},
    train={"dataset": {"mask_format": "bitmaps"}},
    val={"dataset": {"mask_format": "bitmaps"}},
    run={"expected_ranges": {**MASK_RCNN.run.expected_ranges, "loss_mask_points": (1e-4, 0.69)}},
)
