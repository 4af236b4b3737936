"""Measuring the number of parameters, the cost and the levels of a backbone."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..structures import FeatureInfo
from .create import create_backbone
from .names import TIMM_PREFIX

IMAGE_SIZE = 224  # pixels; the size at which papers state the cost


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """The number of parameters, cost and levels of a backbone, without a classifier.

    ``gflops`` is the number of multiply-adds of convolutions and matrix products, in 10^9, for an image of 224 x 224
    pixels. A multiply-add counts once, as in papers and in torchvision: 4.09 for ResNet-50 with its classifier.
    """

    name: str
    parameters: int
    gflops: float
    feature_info: dict[str, FeatureInfo]


def describe_backbone(name: str) -> BackboneDescription:
    """Measure the backbone ``name`` with its default options.

    Networks of the residual family are measured on the meta device, which needs no memory; timm's models are run on
    the CPU.
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
