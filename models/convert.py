"""Weights of other toolkits' detectors under our names."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..structures import CheckpointError

_TORCHVISION_NAMES = (
    (r"backbone\.body\.", r"backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.", lambda found: f"neck.lateral.c{int(found[1]) + 2}."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.", lambda found: f"neck.output.p{int(found[1]) + 2}."),
    (r"rpn\.head\.conv\.0\.0\.", r"head.rpn.conv."),
    (r"rpn\.head\.cls_logits\.", r"head.rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", r"head.rpn.offsets."),
    (r"roi_heads\.box_head\.fc([67])\.", lambda found: f"head.box.fc.{int(found[1]) - 6}."),
    (r"roi_heads\.box_predictor\.cls_score\.", r"head.box.class_logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", r"head.box.box_offsets."),
)


def from_torchvision_detector(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of torchvision's ``fasterrcnn_resnet*_fpn`` for a ``Model`` of frozen-norm ResNet, FPN and R-CNN.

    The head needs the conventions ``vertebra.heads.TORCHVISION``. Raises :class:`CheckpointError` for other names.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _TORCHVISION_NAMES:
            ours, count = re.subn("^" + pattern, replacement, name)
            if count:
                converted[ours] = tensor
                break
        else:
            raise CheckpointError(f"{name} is no tensor of torchvision's Faster R-CNN with a ResNet-FPN")
    return converted
