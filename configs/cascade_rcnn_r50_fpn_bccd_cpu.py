"""Cascade R-CNN."""

from vertebra.configs.faster_rcnn_r50_fpn_bccd_cpu import CONFIG as FASTER_RCNN
from vertebra.heads import CASCADE

_HEAD = FASTER_RCNN.model.head
_SHARED = {"fc": (256,), "samples": 128, "levels": ("p2", "p3", "p4")}
CONFIG = FASTER_RCNN.replace(
    name="cascade_rcnn_r50_fpn_bccd_cpu",
    model={
        "head": CASCADE.replace(
            rpn=_HEAD.rpn,
            box=CASCADE.box.replace(**_SHARED),
            cascade=tuple(s.replace(**_SHARED) for s in CASCADE.cascade),
        )
    },
)
