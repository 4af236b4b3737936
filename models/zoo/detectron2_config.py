"""Models of detectron2 that are described by a config.yaml, as for weights that a user has trained.

Tensors do not show the pixels, the position of the stride, or the sampling of RoIAlign: the config.yaml does. Each of
its settings is mapped to a field of Vertebra's configs, or must have the one value that has a counterpart, or has no
effect on the model (``detectron2_settings.py``). Any other setting is refused by its name.
"""

from pathlib import Path

from pydantic import ValidationError

from ...backbones import RESNETS, ResNetConfig, ResNetSpec
from ...heads import HeadConfig, PanopticFPNConfig, RetinaNetConfig
from ...necks import FPNConfig, PassthroughConfig
from ...structures import (
    Classes,
    InputConfig,
    PartConfig,
    ShortSideResize,
    panoptic_classes,
    usage_error_from_validation,
)
from ..build import ModelConfig
from ..keys.detectron2 import key_map
from .detectron2 import coco_classes
from .detectron2_heads import NORMS, read_head, read_levels
from .detectron2_settings import Settings, read_settings
from .published import PublishedModel

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_NECKS = {
    "build_resnet_backbone": None,
    "build_resnet_fpn_backbone": "pool",
    "build_retinanet_resnet_fpn_backbone": "conv_from_input",
}


def published_from_config(path: str | Path) -> PublishedModel:
    """Read a config.yaml that detectron2 has written, and return the model that it describes, without weights.

    Raises UsageError, naming the setting, if one of them has no counterpart.
    """
    settings = read_settings(Path(path))
    try:
        model = ModelConfig(
            input=_pixels(settings), backbone=_backbone(settings), neck=_neck(settings), head=read_head(settings)
        )
        sides = settings.fields("INPUT", short_side="MIN_SIZE_TEST", long_side="MAX_SIZE_TEST")
        preprocessing = ShortSideResize(**sides)
    except ValidationError as error:
        raise usage_error_from_validation(str(path), error) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise settings.error(f"a setting has a value of a wrong type: {error}") from None
    settings.require("TEST.AUG", ENABLED=False)
    settings.require("MODEL", LOAD_PROPOSALS=False)
    settings.choose("VERSION", {2: 2})
    classes = _classes(settings, model.head)
    settings.refuse_unread()
    return PublishedModel(str(path), model, classes, preprocessing, key_map(model))


def _pixels(settings: Settings) -> InputConfig:
    """Return the pixel normalization."""
    channels = settings.choose("INPUT.FORMAT", {"BGR": "bgr", "RGB": "rgb"})
    mean, std = tuple(settings["MODEL.PIXEL_MEAN"]), tuple(settings["MODEL.PIXEL_STD"])
    return InputConfig(mean=mean, std=std, scale=255, channels=channels)


def _backbone(settings: Settings) -> ResNetConfig:
    """Return the residual network."""
    section = "MODEL.RESNETS"
    depth = settings.choose(f"{section}.DEPTH", {depth: depth for depth in _DEPTHS})
    basic = depth < 50
    settings.require(section, STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=64 if basic else 256)
    groups, width = settings[f"{section}.NUM_GROUPS"], settings[f"{section}.WIDTH_PER_GROUP"]
    spec = ResNetSpec("basic" if basic else "bottleneck", _DEPTHS[depth], groups=groups, width_per_group=width)
    name = next((name for name, known in RESNETS.items() if known == spec), None)
    if name is None:
        raise settings.error(f"no backbone has the DEPTH {depth}, NUM_GROUPS {groups} and WIDTH_PER_GROUP {width}")
    deformable = settings[f"{section}.DEFORM_ON_PER_STAGE"]
    if any(deformable):
        settings.require(section, DEFORM_MODULATED=True, DEFORM_NUM_GROUPS=1)
    extra = settings.choose("MODEL.BACKBONE.NAME", _NECKS)
    returned = read_levels(settings, f"{section}.OUT_FEATURES")
    has_stride_in_1x1 = settings[f"{section}.STRIDE_IN_1X1"] and not basic
    return ResNetConfig.model_validate(
        {
            "name": name,
            "style": "caffe" if has_stride_in_1x1 else "pytorch",
            "norm": settings.choose(f"{section}.NORM", NORMS),
            "freeze_at": settings["MODEL.BACKBONE.FREEZE_AT"],
            "output_stride": settings.choose(f"{section}.RES5_DILATION", {1: 32, 2: 16}),
            "deformable": tuple(f"c{stage}" for stage, chosen in enumerate(deformable, start=2) if chosen),
            "levels": returned if extra is None else None,
        }
    )


def _neck(settings: Settings) -> PartConfig:
    """Return the FPN, or the config for no neck."""
    extra = settings.choose("MODEL.BACKBONE.NAME", _NECKS)
    if extra is None:
        return PassthroughConfig()
    settings.require("MODEL.FPN", FUSE_TYPE="sum")
    return FPNConfig.model_validate(
        {
            "channels": settings["MODEL.FPN.OUT_CHANNELS"],
            "levels": read_levels(settings, "MODEL.FPN.IN_FEATURES", ("c2", "c3", "c4", "c5")),
            "norm": settings.choose("MODEL.FPN.NORM", NORMS),
            "extra": extra,
        }
    )


def _classes(settings: Settings, head: HeadConfig) -> dict[str, Classes]:
    """Return the classes by task: COCO's if the model was trained on COCO, otherwise numbers, since none are named."""
    section = "MODEL.RETINANET" if isinstance(head, RetinaNetConfig) else "MODEL.ROI_HEADS"
    things = Classes(*_numbered("class", settings[f"{section}.NUM_CLASSES"]))
    stuff = None
    if isinstance(head, PanopticFPNConfig):
        stuff = Classes(*_numbered("stuff", settings["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] - 1))
    classes = {"detection": things} if stuff is None else panoptic_classes(things, stuff, "one")
    of_coco = coco_classes(head)
    same_number = {task: len(known.names) for task, known in classes.items()} == {
        task: len(known.names) for task, known in of_coco.items()
    }
    trained_on_coco = all("coco_201" in str(name) for name in settings["DATASETS.TRAIN"])
    return of_coco if same_number and trained_on_coco else classes


def _numbered(word: str, count: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names of classes and their category ids, both numbered from 1."""
    numbers = tuple(range(1, count + 1))
    return tuple(f"{word} {number}" for number in numbers), numbers
