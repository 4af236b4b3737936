"""What a backbone costs and gives, for a table of them."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..structures import FeatureInfo
from .create import create_backbone
from .timm_bridge import PREFIX

IMAGE_SIZE = 224  # pixels; the size at which the field states the cost of a backbone


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """``gflops`` are 10^9 multiply-adds (one multiply-add counts once) for one image of 224 x 224.

    Convolutions and matrix products count. That is how papers and torchvision state it for classifiers (resnet50:
    4.09), less their last layer.
    """

    name: str
    parameters: int
    gflops: float
    feature_info: dict[str, FeatureInfo]


def describe_backbone(name: str) -> BackboneDescription:
    """The named backbone with its default options. Of ours nothing is allocated or computed; timm's are run."""
    with torch.device("cpu" if name.startswith(PREFIX) else "meta"), torch.no_grad():
        backbone = create_backbone(name).eval()
        image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
        with FlopCounterMode(display=False) as counter:
            backbone(image)
    return BackboneDescription(
        name=name,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        gflops=counter.get_total_flops() / 2 / 1e9,  # the counter counts a multiply and an add
        feature_info=backbone.feature_info,
    )
