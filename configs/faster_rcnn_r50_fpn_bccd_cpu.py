"""Faster R-CNN, ResNet-50 up to c4 with an FPN, images of blood cells: half an hour on one CPU core."""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_bccd import CONFIG as BCCD
from vertebra.data import LoaderConfig, ResizeConfig
from vertebra.engine import EvaluationConfig, RunConfig, ScheduleConfig, SGDConfig
from vertebra.heads import BoxBranchConfig, RCNNConfig, RPNConfig
from vertebra.necks import FPNConfig

CONFIG = BCCD.replace(
    name="faster_rcnn_r50_fpn_bccd_cpu",
    model={
        "backbone": ResNetConfig(name="resnet50", levels=("c2", "c3", "c4"), style="caffe", norm="frozen", freeze_at=2),
        "weights": "weights/resnet50_msra_c4.pt",
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
