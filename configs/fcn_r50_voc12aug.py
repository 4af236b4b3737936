"""FCN, ResNet-50 at output stride 8, PASCAL VOC 2012 with SBD's masks (10,582 images).

    python tools/train.py configs/fcn_r50_voc12aug.py

The recipe of `deeplabv3_r50_os16_voc12aug`. Compare with torchvision's FCN-R50: mIoU 60.5 on COCO images with VOC's
labels. Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.deeplabv3_r50_os16_voc12aug import voc12aug
from vertebra.heads import AuxiliaryConfig, FCNConfig

CONFIG = voc12aug(
    "fcn_r50_voc12aug",
    ResNetConfig(name="resnet50", output_stride=8),
    "torchvision/ResNet50_Weights.IMAGENET1K_V1",
    FCNConfig(auxiliary=AuxiliaryConfig()),
)
