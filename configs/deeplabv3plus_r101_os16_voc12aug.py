"""DeepLabv3+, ResNet-101 at output stride 16, PASCAL VOC 2012 with SBD's masks (10,582 images).

    python tools/train.py configs/deeplabv3plus_r101_os16_voc12aug.py

The recipe of `deeplabv3_r50_os16_voc12aug`. Compare with mIoU 77.7 on val; mmsegmentation publishes 78.62 at output
stride 8 (40k steps). Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.deeplabv3_r50_os16_voc12aug import voc12aug
from vertebra.heads import AuxiliaryConfig, DeepLabConfig, LowLevelConfig

CONFIG = voc12aug(
    "deeplabv3plus_r101_os16_voc12aug",
    ResNetConfig(name="resnet101", output_stride=16, multi_grid=(1, 2, 4)),
    "torchvision/ResNet101_Weights.IMAGENET1K_V2",
    DeepLabConfig(low_level=LowLevelConfig(), auxiliary=AuxiliaryConfig()),
)
