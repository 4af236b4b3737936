"""The models of segmentation_models.pytorch (SMP) with ResNet encoders, for users' own files of weights.

SMP publishes no weights of complete models, and its models have the classes and pixels that a user chose: those below
are its defaults. The conventions were read in SMP 0.6.
"""

from functools import cache
from typing import Literal

from ...backbones import ResNetConfig
from ...heads import SMP_DEEPLAB, SMP_DEEPLAB_PLUS, SMP_FPN, SMP_UNET, SemanticConfig
from ...necks import FPNConfig, PassthroughConfig
from ...structures import Classes, InputConfig, PartConfig, ShortSideResize
from ..build import ModelConfig
from ..keys import KeyMap
from ..keys import smp as keys
from .published import PublishedModel

ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_32x16d",
)
_FAMILIES: dict[str, tuple[Literal[8, 16, 32], PartConfig, SemanticConfig, KeyMap]] = {
    # name: stride of the encoder, neck, head, tensor names
    "deeplabv3": (8, PassthroughConfig(), SMP_DEEPLAB, keys.DEEPLAB),
    "deeplabv3plus": (16, PassthroughConfig(), SMP_DEEPLAB_PLUS, keys.DEEPLAB_PLUS),
    "unet": (32, PassthroughConfig(), SMP_UNET, keys.UNET),
    "fpn": (32, FPNConfig(extra="none", output_convolutions=False), SMP_FPN, keys.FPN),
}
NAMES = tuple(f"{family}-{encoder}" for family in _FAMILIES for encoder in ENCODERS)
NOT_COVERED = "its Unet++, MAnet, Linknet, PSPNet, PAN, UPerNet, Segformer and DPT are not covered, nor other encoders"

_CLASSES = Classes(("background", "object"), (0, 1))
"""The classes of a model with SMP's default of one logit, which is taken as that of an object against a background."""


@cache
def find(entry: str) -> PublishedModel | None:
    """Return a model by its architecture and encoder, such as ``deeplabv3plus-resnet50``; None for an unknown name."""
    if entry not in NAMES:
        return None
    family, _, encoder = entry.partition("-")
    stride, neck, head, key_map = _FAMILIES[family]
    levels = ("c1", "c2", "c3", "c4", "c5") if family == "unet" else None
    backbone = ResNetConfig(name=encoder, levels=levels, output_stride=stride, dilate_first=True)
    return PublishedModel(
        f"smp/{entry}",
        ModelConfig(input=InputConfig(), backbone=backbone, neck=neck, head=head),
        classes={"semantic": _CLASSES},
        preprocessing=ShortSideResize(short_side=512, long_side=2048),
        keys=key_map,
    )
