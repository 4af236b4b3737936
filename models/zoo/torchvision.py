"""torchvision's detectors and segmentation models; facts about their weights come from torchvision itself."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from ...backbones import ResNetConfig
from ...heads import (
    TORCHVISION,
    TORCHVISION_DEEPLAB,
    TORCHVISION_FCN,
    TORCHVISION_FCOS,
    TORCHVISION_KEYPOINT,
    TORCHVISION_MASK,
    TORCHVISION_RETINANET,
    TORCHVISION_RETINANET_V2,
    TORCHVISION_V2,
    HeadConfig,
)
from ...necks import FPNConfig, PassthroughConfig
from ...structures import COCO_SKELETON, Classes, InputConfig, PartConfig, ShortSideResize
from ..build import ModelConfig
from ..keys import KeyMap
from ..keys import torchvision as keys
from .published import PublishedModel, PublishedWeights

_METRICS = {"box_map": "box AP", "mask_map": "mask AP", "kp_map": "keypoint AP", "miou": "mIoU"}
_IMAGES = "trained on COCO, whose images have their owners' licenses"

_FROZEN = ResNetConfig(name="resnet50", norm="frozen", freeze_at=2)
# torchvision gives its first detectors' weights an epsilon of 0 (``overwrite_eps``), with which they were trained.
_FROZEN_WITHOUT_EPSILON = _FROZEN.replace(norm_eps=0.0)
_NORMED = ResNetConfig(name="resnet50", norm="batch", freeze_at=2)


def _dense_neck(extra: str) -> FPNConfig:
    return FPNConfig.model_validate({"levels": ("c3", "c4", "c5"), "extra": extra})


_DETECTORS: Mapping[str, tuple[ResNetConfig, PartConfig, HeadConfig, KeyMap]] = {
    "fasterrcnn_resnet50_fpn": (_FROZEN_WITHOUT_EPSILON, FPNConfig(), TORCHVISION, keys.RCNN),
    "fasterrcnn_resnet50_fpn_v2": (
        _NORMED,
        FPNConfig(norm="batch"),
        TORCHVISION_V2.replace(mask=None),
        keys.RCNN_V2,
    ),
    "maskrcnn_resnet50_fpn": (_FROZEN_WITHOUT_EPSILON, FPNConfig(), TORCHVISION_MASK, keys.RCNN),
    "maskrcnn_resnet50_fpn_v2": (_NORMED, FPNConfig(norm="batch"), TORCHVISION_V2, keys.RCNN_V2),
    "keypointrcnn_resnet50_fpn": (_FROZEN_WITHOUT_EPSILON, FPNConfig(), TORCHVISION_KEYPOINT, keys.RCNN),
    "retinanet_resnet50_fpn": (_FROZEN_WITHOUT_EPSILON, _dense_neck("conv"), TORCHVISION_RETINANET, keys.RETINANET),
    "retinanet_resnet50_fpn_v2": (
        _NORMED,
        _dense_neck("conv_from_input"),
        TORCHVISION_RETINANET_V2,
        keys.RETINANET,
    ),
    "fcos_resnet50_fpn": (_FROZEN, _dense_neck("conv"), TORCHVISION_FCOS, keys.FCOS),
}
_WITH_BACKGROUND = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn")
"""Detectors with a logit for the category 0, which no object has: their losses are one sigmoid per class."""

_SEGMENTERS: Mapping[str, tuple[str, HeadConfig, KeyMap]] = {
    "deeplabv3_resnet50": ("resnet50", TORCHVISION_DEEPLAB, keys.DEEPLAB),
    "deeplabv3_resnet101": ("resnet101", TORCHVISION_DEEPLAB, keys.DEEPLAB),
    "fcn_resnet50": ("resnet50", TORCHVISION_FCN, keys.FCN),
    "fcn_resnet101": ("resnet101", TORCHVISION_FCN, keys.FCN),
}
NAMES = (*_DETECTORS, *_SEGMENTERS)
NOT_COVERED = "its SSD, SSDLite, LR-ASPP and MobileNet models are not covered"


@cache
def find(entry: str) -> PublishedModel | None:
    """Return a model by its name in torchvision; None if it is not covered."""
    if entry in _DETECTORS:
        return _detector(entry)
    return _segmenter(entry) if entry in _SEGMENTERS else None


def _detector(entry: str) -> PublishedModel:
    backbone, neck, head, key_map = _DETECTORS[entry]
    members = _members(entry)
    return PublishedModel(
        f"torchvision/{entry}",
        ModelConfig(input=InputConfig(), backbone=backbone, neck=neck, head=head),
        classes={"detection": _detection_classes(members[0].meta, first=0 if entry in _WITH_BACKGROUND else 1)},
        preprocessing=ShortSideResize(short_side=800, long_side=1333, rounding="floor"),
        keys=key_map,
        weights=_weights(members),
        parameters=members[0].meta["num_params"],
    )


def _segmenter(entry: str) -> PublishedModel:
    backbone, head, key_map = _SEGMENTERS[entry]
    members = _members(entry)
    transform = members[0].transforms()
    names = ("background", *members[0].meta["categories"][1:])
    return PublishedModel(
        f"torchvision/{entry}",
        ModelConfig(
            input=InputConfig(mean=tuple(transform.mean), std=tuple(transform.std)),
            backbone=ResNetConfig(name=backbone, output_stride=8),
            neck=PassthroughConfig(),
            head=head,
        ),
        classes={"semantic": Classes(names, tuple(range(len(names))))},
        # The short side alone is fixed there.
        preprocessing=ShortSideResize(short_side=transform.resize_size[0], long_side=100_000, rounding="floor"),
        keys=key_map,
        weights=_weights(members),
        parameters=members[0].meta["num_params"],
    )


def _members(entry: str) -> list[Any]:
    """Return torchvision's weights of a model, the default first."""
    from torchvision.models import get_model_weights

    members: Any = get_model_weights(entry)
    return sorted(members, key=lambda member: member is not members.DEFAULT)


def _weights(members: list[Any]) -> dict[str, PublishedWeights]:
    weights = {}
    for member in members:
        facts = member.meta
        (scores,) = facts["_metrics"].values()
        weights[member.name] = PublishedWeights(
            url=member.url,
            scores={_METRICS[metric]: value for metric, value in scores.items() if metric in _METRICS},
            license=f"{facts.get('license', 'BSD-3-Clause (torchvision)')}; {_IMAGES}",
            page=facts["recipe"],
            sha256=PurePosixPath(member.url).stem.rpartition("-")[2],
        )
    return weights


def _detection_classes(facts: Mapping[str, Any], first: int) -> Classes:
    """Return the classes of a detector: torchvision's categories from index ``first``; the index is COCO's id.

    COCO leaves out some ids, which torchvision calls ``N/A``; the name gets the id, since names must differ.
    """
    categories = ["background", *facts["categories"][1:]]
    names = [f"N/A {index}" if name == "N/A" else name for index, name in enumerate(categories)]
    skeleton = replace(COCO_SKELETON, offset=0.0) if "keypoint_names" in facts else None
    return Classes(tuple(names[first:]), tuple(range(first, len(names))), skeleton=skeleton)
