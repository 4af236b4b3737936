"""Small semantic heads, with features, images and targets for them."""

import torch

from vertebra.heads import HEADS, AuxiliaryConfig, SemanticHead
from vertebra.structures import FeatureInfo, Images

from .pyramids import BACKBONE, features_of

CLASSES = 5
Sizes = tuple[tuple[int, int], ...]
SIZES: Sizes = ((65, 97), (64, 90))
NAMES = [name for name in HEADS if getattr(HEADS[name].build, "task", None) == "semantic"]
NECK = {f"p{level}": FeatureInfo(8, 2**level) for level in (2, 3, 4, 5)}


def pyramid(output_stride: int = 16) -> dict[str, FeatureInfo]:
    """Return the levels of a dilated ResNet and of a neck."""
    levels = {name: FeatureInfo(info.channels, min(info.stride, output_stride)) for name, info in BACKBONE.items()}
    return levels | NECK


def build_head(name: str, output_stride: int = 16, num_classes: int = CLASSES, **options) -> SemanticHead:
    """Build a small semantic head by name, with an auxiliary classifier."""
    config_type = HEADS[name].config
    options = {"auxiliary": AuxiliaryConfig(), **options}
    if "channels" in config_type.model_fields:
        options["channels"] = 64
    torch.manual_seed(0)
    return HEADS[name].build(pyramid(output_stride), num_classes, config_type(name=name, **options))


def scene(output_stride: int = 16, sizes: Sizes = SIZES) -> tuple[dict[str, torch.Tensor], Images, list[torch.Tensor]]:
    """Return random features, blank images, and a random target for each image."""
    images = Images.from_list([torch.zeros(3, *size, dtype=torch.uint8) for size in sizes], divisor=1)
    features = features_of(pyramid(output_stride), *images.pixels.shape[-2:])
    generator = torch.Generator().manual_seed(1)
    truth = [torch.randint(0, CLASSES, size, generator=generator) for size in sizes]
    return {level: feature[: len(sizes)] for level, feature in features.items()}, images, truth
