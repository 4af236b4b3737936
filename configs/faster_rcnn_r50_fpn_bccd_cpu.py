"""Faster R-CNN on images of blood cells, small enough for half an hour on one CPU core.

    python tools/train.py configs/faster_rcnn_r50_fpn_bccd_cpu.py

The data of `faster_rcnn_r50_fpn_bccd` at short sides of 208 to 272 pixels; a ResNet-50 up to c4, an FPN with 96
channels, and 600 steps of 4 images. `cascade_rcnn`, `retinanet`, `fcos` and `yolox` have a config for the same data,
backbone and number of steps.

AP50 on the 87 validation images, and the CPU time of one thread:

    Faster R-CNN   0.890   23 min
    Cascade R-CNN  0.902   28 min
    RetinaNet      0.893   20 min
    FCOS           0.881   19 min
    YOLOX          0.893   17 min

These runs started from an ImageNet ResNet-50 in Caffe's style that ends at c4 (`--set model.backbone.style=caffe --set
model.weights=FILE`) instead of torchvision's weights.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_bccd import CONFIG as BCCD
from vertebra.data import LoaderConfig, ResizeConfig
from vertebra.engine import EvaluationConfig, RunConfig, ScheduleConfig, SGDConfig
from vertebra.heads import BoxBranchConfig, RCNNConfig, RPNConfig
from vertebra.necks import FPNConfig

CONFIG = BCCD.replace(
    name="faster_rcnn_r50_fpn_bccd_cpu",
    model={
        "backbone": ResNetConfig(name="resnet50", levels=("c2", "c3", "c4"), norm="frozen", freeze_at=2),
        "neck": FPNConfig(channels=96),
        "head": RCNNConfig(
            rpn=RPNConfig(post_nms=(300, 300)), box=BoxBranchConfig(fc=(256,), samples=128, levels=("p2", "p3", "p4"))
        ),
    },
    train={"transform": ResizeConfig(short_sides=(208, 224, 240, 256, 272), flip=0.5)},
    val={"transform": ResizeConfig(short_sides=(240,))},
    recipe={"batch_size": 4, "optimizer": SGDConfig(lr=0.01), "schedule": ScheduleConfig(steps=600, warmup_steps=50)},
    evaluation=EvaluationConfig(every=300),
    run=RunConfig(checkpoint_every=300, log_every=10, loader=LoaderConfig(workers=0)),
)
