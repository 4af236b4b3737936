"""The size, cost and levels of a backbone, for a table of backbones."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..structures import FeatureInfo
from .create import create_backbone
from .names import TIMM_PREFIX

IMAGE_SIZE = 224  # pixels; papers state the cost of a backbone at this size


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """The size and cost of a backbone without its classifier.

    ``gflops`` counts 10^9 multiply-adds of convolutions and matrix products (a multiply-add counts once) for one image
    of 224 x 224 pixels, as papers and torchvision do: 4.09 for ResNet-50 with its classifier.
    """

    name: str
    parameters: int
    gflops: float
    feature_info: dict[str, FeatureInfo]


def describe_backbone(name: str) -> BackboneDescription:
    """Measure the backbone ``name`` with its default options.

    Networks of the residual family are measured on the meta device, without memory or time; timm's models are run.
    """
    with torch.device("cpu" if name.startswith(TIMM_PREFIX) else "meta"), torch.no_grad():
        backbone = create_backbone(name).eval()
        image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
        with FlopCounterMode(display=False) as counter:
            backbone(image)
    return BackboneDescription(
        name=name,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        gflops=counter.get_total_flops() / 2 / 1e9,  # the counter counts a multiply-add twice
        feature_info=backbone.feature_info,
    )
