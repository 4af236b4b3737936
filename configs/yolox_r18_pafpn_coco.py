"""YOLOX head on a ResNet-18 with a PAFPN of 128 channels, COCO, 300 epochs.

    torchrun --nproc-per-node 8 tools/train.py configs/yolox_r18_pafpn_coco.py

The recipe is that of `yolox_r50_pafpn_coco`. No figures are published for this network; YOLOX-S, with 9 M parameters,
has box AP 40.5 on val2017. Not yet run by us.
"""

from vertebra.configs.yolox_r50_pafpn_coco import CONFIG as YOLOX_R50

CONFIG = YOLOX_R50.replace(
    name="yolox_r18_pafpn_coco",
    model={
        "backbone": {"name": "resnet18"},
        "weights": "torchvision/ResNet18_Weights.IMAGENET1K_V1",
        "neck": {"channels": 128},
    },
)
