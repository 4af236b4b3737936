"""MMSegmentation's model zoo; files and scores are those of the ``metafile.yaml`` of each folder of its ``configs``.

The conventions were read in MMSegmentation 1.2.
"""

import re
from functools import cache

from ...backbones import ResNetConfig
from ...heads import MMSEGMENTATION_DEEPLAB, MMSEGMENTATION_DEEPLAB_PLUS, MMSEGMENTATION_FCN, SemanticConfig
from ...necks import PassthroughConfig
from ...structures import Classes, InputConfig, ShortSideResize, UsageError
from ..build import ModelConfig
from ..keys import KeyMap
from ..keys import mmseg as keys
from .published import PublishedModel, PublishedWeights

_FILES = "https://download.openmmlab.com/mmsegmentation/v0.5"
_PAGES = "https://github.com/open-mmlab/mmsegmentation/tree/main/configs"

_FAMILIES: dict[str, tuple[SemanticConfig, KeyMap]] = {
    "deeplabv3": (MMSEGMENTATION_DEEPLAB, keys.DEEPLAB),
    "deeplabv3plus": (MMSEGMENTATION_DEEPLAB_PLUS, keys.DEEPLAB_PLUS),
    "fcn": (MMSEGMENTATION_FCN, keys.FCN),
}

_CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed ", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name",
    "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce",
    "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board",
    "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
_DATA: dict[str, tuple[str, Classes, int]] = {
    # name: title, classes with their values in the annotation files, short side of images
    "cityscapes": ("Cityscapes", Classes(_CITYSCAPES, tuple(range(19))), 1024),
    "ade20k": ("ADE20K", Classes(_ADE20K, tuple(range(1, 151))), 512),
    "voc12aug": ("PASCAL VOC 2012 with SBD", Classes(_VOC, tuple(range(21))), 512),
}

_ROWS = (
    # name, end of the file's name, mIoU
    ("deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024", "20200605_022449-acadc2f8", 79.09),
    ("deeplabv3_r101-d8_4xb2-40k_cityscapes-512x1024", "20200605_012241-7fd3f799", 77.12),
    ("deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024", "20200606_113404-b92cfdd4", 79.32),
    ("deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024", "20200606_113503-9e428899", 80.2),
    ("deeplabv3_r50-d8_4xb4-80k_ade20k-512x512", "20200614_185028-0bb3f844", 42.42),
    ("deeplabv3_r101-d8_4xb4-80k_ade20k-512x512", "20200615_021256-d89c7fa4", 44.08),
    ("deeplabv3_r50-d8_4xb4-160k_ade20k-512x512", "20200615_123227-5d0ee427", 42.66),
    ("deeplabv3_r101-d8_4xb4-160k_ade20k-512x512", "20200615_105816-b1f72b3b", 45.0),
    ("deeplabv3_r50-d8_4xb4-20k_voc12aug-512x512", "20200617_010906-596905ef", 76.17),
    ("deeplabv3_r101-d8_4xb4-20k_voc12aug-512x512", "20200617_010932-8d13832f", 78.7),
    ("deeplabv3_r50-d8_4xb4-40k_voc12aug-512x512", "20200613_161546-2ae96e7e", 77.68),
    ("deeplabv3_r101-d8_4xb4-40k_voc12aug-512x512", "20200613_161432-0017d784", 77.92),
    ("deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024", "20200605_094610-d222ffcd", 79.61),
    ("deeplabv3plus_r101-d8_4xb2-40k_cityscapes-512x1024", "20200605_094614-3769eecf", 80.21),
    ("deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024", "20200606_114049-f9fb496d", 80.09),
    ("deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024", "20200606_114143-068fcfe9", 80.97),
    ("deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512", "20200614_185028-bf1400d8", 42.72),
    ("deeplabv3plus_r101-d8_4xb4-80k_ade20k-512x512", "20200615_014139-d5730af7", 44.6),
    ("deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512", "20200615_124504-6135c7e0", 43.95),
    ("deeplabv3plus_r101-d8_4xb4-160k_ade20k-512x512", "20200615_123232-38ed86bb", 45.47),
    ("deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512", "20200617_102323-aad58ef1", 75.93),
    ("deeplabv3plus_r101-d8_4xb4-20k_voc12aug-512x512", "20200617_102345-c7ff3d56", 77.22),
    ("deeplabv3plus_r50-d8_4xb4-40k_voc12aug-512x512", "20200613_161759-e1b43aa9", 76.81),
    ("deeplabv3plus_r101-d8_4xb4-40k_voc12aug-512x512", "20200613_205333-faf03387", 78.62),
    ("fcn_r50-d8_4xb2-40k_cityscapes-512x1024", "20200604_192608-efe53f0d", 72.25),
    ("fcn_r101-d8_4xb2-40k_cityscapes-512x1024", "20200604_181852-a883d3a1", 75.45),
    ("fcn_r50-d8_4xb2-80k_cityscapes-512x1024", "20200606_113019-03aa804d", 73.61),
    ("fcn_r101-d8_4xb2-80k_cityscapes-512x1024", "20200606_113038-3fb937eb", 75.13),
    ("fcn_r50-d8_4xb4-80k_ade20k-512x512", "20200614_144016-f8ac5082", 35.94),
    ("fcn_r101-d8_4xb4-80k_ade20k-512x512", "20200615_014143-bc1809f7", 39.61),
    ("fcn_r50-d8_4xb4-160k_ade20k-512x512", "20200615_100713-4edbc3b4", 36.1),
    ("fcn_r101-d8_4xb4-160k_ade20k-512x512", "20200615_105816-fd192bd5", 39.91),
    ("fcn_r50-d8_4xb4-20k_voc12aug-512x512", "20200617_010715-52dc5306", 67.08),
    ("fcn_r101-d8_4xb4-20k_voc12aug-512x512", "20200617_010842-0bb4e798", 71.16),
    ("fcn_r50-d8_4xb4-40k_voc12aug-512x512", "20200613_161222-5e2dbf40", 66.97),
    ("fcn_r101-d8_4xb4-40k_voc12aug-512x512", "20200613_161240-4c8bcefd", 69.91),
)  # fmt: skip
NAMES = tuple(row[0] for row in _ROWS)
NOT_COVERED = "its other models, and models of other data than Cityscapes, ADE20K and PASCAL VOC, are not covered"

_REASONS = {
    "769x769": "it is evaluated with sliding windows, and trained with another alignment: choose 512x1024",
    "fp16": "only models trained in single precision are known",
    "amp": "only models trained in single precision are known",
}
"""The reasons why models of the zoo are not covered, by a part of their names."""

_NAME = re.compile(r"(\w+)_r(\d+)-d8_4xb\d-(\d+k)_(\w+)-(\w+)")
"""The name of a model: family, depth, iterations, data and size of crops."""


@cache
def find(entry: str) -> PublishedModel | None:
    """Return a model by the name of its config in MMSegmentation 1.

    Returns None for an unknown name. Raises UsageError with the reason if the model is not covered.
    """
    for name, file, score in _ROWS:
        if name == entry:
            return _describe(name, file, score)
    for part, reason in _REASONS.items():
        if part in entry:
            raise UsageError(f"mmseg/{entry} is not covered: {reason}")
    return None


def _describe(name: str, file: str, score: float) -> PublishedModel:
    found = _NAME.fullmatch(name)
    assert found is not None, name
    family, depth, iterations, data, crop = found.groups()
    head, key_map = _FAMILIES[family]
    title, classes, short_side = _DATA[data]
    former_name = f"{family}_r{depth}-d8_{crop}_{iterations}_{data}"  # that of versions before 1, which the file has
    weights = PublishedWeights(
        url=f"{_FILES}/{family}/{former_name}/{former_name}_{file}.pth",
        scores={"mIoU": score},
        license=f"Apache-2.0 (MMSegmentation); trained on {title}, whose terms of use apply to its images",
        page=f"{_PAGES}/{family}",
        sha256=file.rpartition("-")[2],
    )
    backbone = ResNetConfig(name=f"resnet{depth}c", output_stride=8)
    return PublishedModel(
        f"mmseg/{name}",
        ModelConfig(input=InputConfig(), backbone=backbone, neck=PassthroughConfig(), head=head),
        classes={"semantic": classes},
        preprocessing=ShortSideResize(short_side=short_side, long_side=2048),
        keys=key_map,
        weights={weights.sha256: weights},
    )
