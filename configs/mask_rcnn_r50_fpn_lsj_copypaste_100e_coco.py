"""Mask R-CNN, ResNet-50-FPN, COCO, from random weights with large-scale jitter and copy-paste, 100 epochs.

    python tools/train.py configs/mask_rcnn_r50_fpn_lsj_copypaste_100e_coco.py

`mask_rcnn_r50_fpn_lsj_100e_coco` with objects of another image pasted into each (2012.07177); it should score higher
than that config's published figures. Not yet run by us, and too slow for a CPU. Every sample reads two images, so it
has twice the workers.
"""

from vertebra.configs.mask_rcnn_r50_fpn_lsj_100e_coco import CONFIG as JITTERED
from vertebra.data import CopyPasteConfig

CONFIG = JITTERED.replace(
    name="mask_rcnn_r50_fpn_lsj_copypaste_100e_coco",
    train={"mix": CopyPasteConfig()},
    run={"loader": {"workers": 32}},
)
