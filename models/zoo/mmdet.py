"""MMDetection's model zoo; files and scores are those of the ``metafile.yml`` of each folder of its ``configs``.

The conventions were read in MMDetection 3.3, and apply to the files of version 2, which are the ones that it publishes.
"""

import re
from functools import cache

from ...backbones import ResNetConfig
from ...heads import (
    MMDETECTION,
    MMDETECTION_CASCADE,
    MMDETECTION_FCOS,
    MMDETECTION_FCOS_V1,
    MMDETECTION_MASK,
    MMDETECTION_RETINANET,
    HeadConfig,
)
from ...necks import FPNConfig
from ...structures import COCO_THINGS, InputConfig, ShortSideResize, UsageError
from ..build import ModelConfig
from ..keys import KeyMap
from ..keys import mmdet as keys
from .published import PublishedModel, PublishedWeights

_FILES = "https://download.openmmlab.com/mmdetection/v2.0"
_PAGES = "https://github.com/open-mmlab/mmdetection/tree/main/configs"
_LICENSE = "Apache-2.0 (MMDetection); trained on COCO, whose images have their owners' licenses"

CAFFE = InputConfig(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), scale=255, channels="bgr")
"""The pixels of models with a ResNet in Caffe's style."""
CAFFE_1 = CAFFE.replace(mean=(102.9801, 115.9465, 122.7717))
"""The pixels of the first FCOS models, whose backbones are those of the first Detectron."""
CAFFE_WITH_STD = CAFFE.replace(std=(57.375, 57.12, 58.395))
"""The pixels of models with ResNeXt-101 32x8d."""

_RETINANET_NECK = FPNConfig(levels=("c3", "c4", "c5"), extra="conv_from_input", extra_relu=False)
_FAMILIES: dict[str, tuple[FPNConfig, HeadConfig, KeyMap]] = {
    "faster-rcnn": (FPNConfig(), MMDETECTION, keys.RCNN),
    "mask-rcnn": (FPNConfig(), MMDETECTION_MASK, keys.RCNN),
    "cascade-rcnn": (FPNConfig(), MMDETECTION_CASCADE, keys.CASCADE),
    "retinanet": (_RETINANET_NECK, MMDETECTION_RETINANET, keys.RETINANET),
    "fcos": (_RETINANET_NECK.replace(extra="conv", extra_relu=True), MMDETECTION_FCOS_V1, keys.FCOS),
}

_ROWS: tuple[tuple[str, str, *tuple[float, ...]], ...] = (
    # name, end of the file's name, box AP, mask AP
    ("faster-rcnn_r50-caffe_fpn_1x_coco", "bbox_mAP-0.378_20200504_180032-c5925ee5", 37.8),
    ("faster-rcnn_r50_fpn_1x_coco", "20200130-047c8118", 37.4),
    ("faster-rcnn_r50_fpn_2x_coco", "bbox_mAP-0.384_20200504_210434-a5d8aa15", 38.4),
    ("faster-rcnn_r101-caffe_fpn_1x_coco", "bbox_mAP-0.398_20200504_180057-b269e9dd", 39.8),
    ("faster-rcnn_r101_fpn_1x_coco", "20200130-f513f705", 39.4),
    ("faster-rcnn_r101_fpn_2x_coco", "bbox_mAP-0.398_20200504_210455-1d2dac9c", 39.8),
    ("faster-rcnn_x101-32x4d_fpn_1x_coco", "20200203-cff10310", 41.2),
    ("faster-rcnn_x101-32x4d_fpn_2x_coco", "bbox_mAP-0.412_20200506_041400-64a12c0b", 41.2),
    ("faster-rcnn_x101-64x4d_fpn_1x_coco", "20200204-833ee192", 42.1),
    ("faster-rcnn_x101-64x4d_fpn_2x_coco", "20200512_161033-5961fa95", 41.6),
    ("faster-rcnn_r50-caffe_fpn_ms-2x_coco", "bbox_mAP-0.397_20200504_231813-10b2de58", 39.7),
    ("faster-rcnn_r50-caffe_fpn_ms-3x_coco", "20210526_095054-1f77628b", 39.9),
    ("faster-rcnn_r50_fpn_ms-3x_coco", "20210524_110822-e10bd31c", 40.3),
    ("faster-rcnn_r101_fpn_ms-3x_coco", "20210524_110822-4d4d2ca8", 41.8),
    ("faster-rcnn_x101-32x4d_fpn_ms-3x_coco", "20210524_124151-16b9b260", 42.5),
    ("faster-rcnn_x101-32x8d_fpn_ms-3x_coco", "20210604_182954-002e082a", 42.4),
    ("faster-rcnn_x101-64x4d_fpn_ms-3x_coco", "20210524_124528-26c63de6", 43.1),
    ("mask-rcnn_r50-caffe_fpn_1x_coco", "bbox_mAP-0.38__segm_mAP-0.344_20200504_231812-0ebd1859", 38.0, 34.4),
    ("mask-rcnn_r50_fpn_1x_coco", "20200205-d4b0c5d6", 38.2, 34.7),
    ("mask-rcnn_r50_fpn_2x_coco", "bbox_mAP-0.392__segm_mAP-0.354_20200505_003907-3e542a40", 39.2, 35.4),
    ("mask-rcnn_r101-caffe_fpn_1x_coco", "20200601_095758-805e06c1", 40.4, 36.4),
    ("mask-rcnn_r101_fpn_1x_coco", "20200204-1efe0ed5", 40.0, 36.1),
    ("mask-rcnn_r101_fpn_2x_coco", "bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7", 40.8, 36.6),
    ("mask-rcnn_x101-32x4d_fpn_1x_coco", "20200205-478d0b67", 41.9, 37.5),
    ("mask-rcnn_x101-32x4d_fpn_2x_coco", "bbox_mAP-0.422__segm_mAP-0.378_20200506_004702-faef898c", 42.2, 37.8),
    ("mask-rcnn_x101-64x4d_fpn_1x_coco", "20200201-9352eb0d", 42.8, 38.4),
    ("mask-rcnn_x101-64x4d_fpn_2x_coco", "20200509_224208-39d6f70c", 42.7, 38.1),
    ("mask-rcnn_x101-32x8d_fpn_1x_coco", "20220630_173841-0aaf329e", 42.8, 38.3),
    ("mask-rcnn_r50-caffe_fpn_ms-poly-2x_coco", "bbox_mAP-0.403__segm_mAP-0.365_20200504_231822-a75c98ce", 40.3, 36.5),
    ("mask-rcnn_r50-caffe_fpn_ms-poly-3x_coco", "bbox_mAP-0.408__segm_mAP-0.37_20200504_163245-42aa3d00", 40.8, 37.0),
    ("mask-rcnn_r50_fpn_ms-poly-3x_coco", "20210524_201154-21b550bb", 40.9, 37.1),
    ("mask-rcnn_r101_fpn_ms-poly-3x_coco", "20210524_200244-5675c317", 42.7, 38.5),
    ("mask-rcnn_r101-caffe_fpn_ms-poly-3x_coco", "20210526_132339-3c33ce02", 42.9, 38.5),
    ("mask-rcnn_x101-32x4d_fpn_ms-poly-3x_coco", "20210524_201410-abcd7859", 43.6, 39.0),
    ("mask-rcnn_x101-32x8d_fpn_ms-poly-1x_coco", "20220630_170346-b4637974", 43.4, 39.0),
    ("mask-rcnn_x101-32x8d_fpn_ms-poly-3x_coco", "20210607_161042-8bd2c639", 44.3),
    ("mask-rcnn_x101-64x4d_fpn_ms-poly_3x_coco", "20210526_120447-c376f129", 44.5, 39.7),
    ("retinanet_r18_fpn_1x_coco", "20220407_171055-614fd399", 31.7),
    ("retinanet_r50-caffe_fpn_1x_coco", "20200531-f11027c5", 36.3),
    ("retinanet_r50_fpn_1x_coco", "20200130-c2398f9e", 36.5),
    ("retinanet_r50_fpn_2x_coco", "20200131-fdb43119", 37.4),
    ("retinanet_r50_fpn_ms-640-800-3x_coco", "20210718_220633-88476508", 39.5),
    ("retinanet_r101-caffe_fpn_1x_coco", "20200531-b428fa0f", 38.5),
    ("retinanet_r101-caffe_fpn_ms-3x_coco", "20210721_063439-88a8a944", 40.7),
    ("retinanet_r101_fpn_1x_coco", "20200130-7a93545f", 38.5),
    ("retinanet_r101_fpn_2x_coco", "20200131-5560aee8", 38.9),
    ("retinanet_r101_fpn_ms-640-800-3x_coco", "20210720_214650-7ee888e0", 41.0),
    ("retinanet_x101-32x4d_fpn_1x_coco", "20200130-5c8b7ec4", 39.9),
    ("retinanet_x101-32x4d_fpn_2x_coco", "20200131-237fc5e1", 40.1),
    ("retinanet_x101-64x4d_fpn_1x_coco", "20200130-366f5af1", 41.0),
    ("retinanet_x101-64x4d_fpn_2x_coco", "20200131-bca068ab", 40.8),
    ("retinanet_x101-64x4d_fpn_ms-640-800-3x_coco", "20210719_051838-022c2187", 41.6),
    ("cascade-rcnn_r50-caffe_fpn_1x_coco", "bbox_mAP-0.404_20200504_174853-b857be87", 40.4),
    ("cascade-rcnn_r50_fpn_1x_coco", "20200316-3dc56deb", 40.3),
    ("cascade-rcnn_r50_fpn_20e_coco", "bbox_mAP-0.41_20200504_175131-e9872a90", 41.0),
    ("cascade-rcnn_r101-caffe_fpn_1x_coco", "bbox_mAP-0.423_20200504_175649-cab8dbd5", 42.3),
    ("cascade-rcnn_r101_fpn_1x_coco", "20200317-0b6a2fbf", 42.0),
    ("cascade-rcnn_r101_fpn_20e_coco", "bbox_mAP-0.425_20200504_231812-5057dcc5", 42.5),
    ("cascade-rcnn_x101-32x4d_fpn_1x_coco", "20200316-95c2deb6", 43.7),
    ("cascade-rcnn_x101-32x4d_fpn_20e_coco", "20200906_134608-9ae0a720", 43.7),
    ("cascade-rcnn_x101-64x4d_fpn_1x_coco", "20200515_075702-43ce6a30", 44.7),
    ("cascade-rcnn_x101_64x4d_fpn_20e_coco", "20200509_224357-051557b1", 44.5),
    # name, the file's name, box AP
    ("fcos_r50-caffe_fpn_gn-head_1x_coco", "fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa", 36.6),
    ("fcos_r101-caffe_fpn_gn-head-1x_coco", "fcos_r101_caffe_fpn_gn-head_1x_coco-0e37b982", 39.1),
    (
        "fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco",
        "fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco-d92ceeea",
        38.5,
    ),
    (
        "fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco",
        "fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6",
        40.8,
    ),
    (
        "fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco",
        "fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco-ede514a8",
        42.6,
    ),
    (
        "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco",
        "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco-0a0d75a8",
        38.7,
    ),
)  # fmt: skip
NAMES = tuple(row[0] for row in _ROWS)
NOT_COVERED = "its other detectors, and models with other necks, C4 or DC5, IoU losses or GCNet, are not covered"

_REASONS = {
    "cascade-mask-rcnn": "its three mask branches, whose masks are averaged, are one in Vertebra: choose cascade-rcnn",
    "faster-rcnn_r101-caffe_fpn_ms-3x": "its config has a ResNet in Caffe's style, but PyTorch's pixels",
    "dcn": "the tensor names of its deformable convolutions are not known",
    "-c4": "its box branch contains the last stage of the backbone, which Vertebra's R-CNN cannot: choose an FPN model",
    "-dc5": "its dilated models are not known: choose an FPN model",
}
"""The reasons why models of the zoo are not covered, by a part of their names."""


@cache
def find(entry: str) -> PublishedModel | None:
    """Return a model by the name of its config in MMDetection 3, such as ``mask-rcnn_r50_fpn_1x_coco``.

    Returns None for an unknown name. Raises UsageError with the reason if the model is not covered.
    """
    for name, file, *scores in _ROWS:
        if name == entry:
            return _describe(name, file, scores)
    for part, reason in _REASONS.items():
        if part in entry:
            raise UsageError(f"mmdet/{entry} is not covered: {reason}")
    return None


def _describe(name: str, file: str, scores: list[float]) -> PublishedModel:
    family = name.partition("_")[0]
    neck, head, key_map = _FAMILIES[family]
    backbone, pixels = _backbone(name)
    if family == "fcos" and "normbbox" in name:
        head = MMDETECTION_FCOS
    elif family == "fcos" and pixels == CAFFE:
        pixels = CAFFE_1
    folder, former_name = family.replace("-", "_"), _name_in_version_2(name)
    file = file if family == "fcos" else f"{former_name}_{file}"
    weights = PublishedWeights(
        url=f"{_FILES}/{folder}/{file.rpartition('-')[0] if family == 'fcos' else former_name}/{file}.pth",
        scores=dict(zip(("box AP", "mask AP"), scores, strict=False)),
        license=_LICENSE,
        page=f"{_PAGES}/{folder}",
        sha256=file.rpartition("-")[2],
    )
    return PublishedModel(
        f"mmdet/{name}",
        ModelConfig(input=pixels, backbone=backbone, neck=neck, head=head),
        classes={"detection": COCO_THINGS},
        preprocessing=ShortSideResize(short_side=800, long_side=1333),
        keys=key_map,
        weights={weights.sha256: weights},
    )


def _backbone(name: str) -> tuple[ResNetConfig, InputConfig]:
    """Return the backbone that the name of a model states, such as ``x101-32x4d``, and the pixels that it takes."""
    network = name.split("_")[1]
    if network.startswith("x101"):
        group = re.search(r"\d+x\d+d", name)
        assert group is not None, name
        config = ResNetConfig(name=f"resnext101_{group[0]}", norm="frozen", freeze_at=2)
        return config, CAFFE_WITH_STD if group[0] == "32x8d" else InputConfig()
    depth, _, style = network.removeprefix("r").partition("-")
    config = ResNetConfig(name=f"resnet{depth}", norm="frozen", freeze_at=2)
    return (config.replace(style="caffe"), CAFFE) if style == "caffe" else (config, InputConfig())


def _name_in_version_2(name: str) -> str:
    """Return the name that a model had in MMDetection 2, which its file still has."""
    for part, former in (
        ("-rcnn", "_rcnn"),
        ("-caffe", "_caffe"),
        ("x101-", "x101_"),
        ("ms-640-800-", "mstrain_"),
        ("ms-poly-", "mstrain-poly_"),
        ("ms-poly_", "mstrain-poly_"),
        ("ms-", "mstrain_"),
    ):
        name = name.replace(part, former)
    return name
