"""Mask R-CNN, ResNet-50-FPN, COCO, from scratch with large-scale jitter and copy-paste, 100 epochs.

    python tools/train.py configs/mask_rcnn_r50_fpn_lsj_copypaste_100e_coco.py

`mask_rcnn_r50_fpn_lsj_100e_coco` with copy-paste: objects of another image are pasted into each image (2012.07177). It
should score higher than the published figures of that config. Every sample reads two images, so there are twice as many
workers. Not yet run by us, and too slow for a CPU.
"""

from vertebra.configs.mask_rcnn_r50_fpn_lsj_100e_coco import CONFIG as JITTERED
from vertebra.data import CopyPasteConfig

CONFIG = JITTERED.replace(
    name="mask_rcnn_r50_fpn_lsj_copypaste_100e_coco",
    train={"mix": CopyPasteConfig()},
    run={"loader": {"workers": 32}},
)
