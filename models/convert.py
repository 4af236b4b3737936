"""Converting the weights of torchvision's detectors and segmentation models to this library's parameter names."""

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..structures import CheckpointError

_NamePatterns = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def _in_blocks_of_three(index: str) -> str:
    """Return the name of a layer of a sequence in a sequence of sequences of three."""
    block, layer = divmod(int(index), 3)
    return f"{block}.{layer}"


_RCNN_NAMES: _NamePatterns = (
    (r"backbone\.body\.", r"backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.", lambda match: f"neck.lateral.c{int(match[1]) + 2}."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.", lambda match: f"neck.output.p{int(match[1]) + 2}."),
    (r"rpn\.head\.conv\.(\d)\.0\.", r"head.rpn.convolutions.\1."),
    (r"rpn\.head\.cls_logits\.", r"head.rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", r"head.rpn.offsets."),
    (r"roi_heads\.box_head\.fc([67])\.", lambda match: f"head.box.fc.{int(match[1]) - 6}."),
    (r"roi_heads\.box_head\.([0-3]\.[01])\.", r"head.box.convolutions.\1."),
    (r"roi_heads\.box_head\.5\.", r"head.box.fc.0."),
    (r"roi_heads\.box_predictor\.cls_score\.", r"head.box.class_logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", r"head.box.box_offsets."),
    (r"roi_heads\.mask_head\.([0-3]\.[01])\.", r"head.mask.convolutions.\1."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", r"head.mask.deconvolution."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", r"head.mask.logits."),
    # torchvision's keypoint head is one Sequential of alternating convolutions and activations.
    (r"roi_heads\.keypoint_head\.(\d+)\.", lambda match: f"head.keypoint.convolutions.{int(match[1]) // 2}.0."),
    (r"roi_heads\.keypoint_predictor\.kps_score_lowres\.", r"head.keypoint.heatmaps."),
)
_DENSE_NAMES: _NamePatterns = (
    (r"backbone\.body\.", r"backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.", lambda match: f"neck.lateral.c{int(match[1]) + 3}."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.", lambda match: f"neck.output.p{int(match[1]) + 3}."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", r"neck.extra.first."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", r"neck.extra.second."),
    (r"head\.classification_head\.cls_logits\.", r"head.class_logits."),
)
_RETINANET_NAMES: _NamePatterns = (
    *_DENSE_NAMES,
    (r"head\.classification_head\.conv\.", r"head.class_tower."),
    (r"head\.regression_head\.conv\.", r"head.box_tower."),
    (r"head\.regression_head\.bbox_reg\.", r"head.box_offsets."),
)
_FCOS_NAMES: _NamePatterns = (
    *_DENSE_NAMES,
    # There, convolutions, norms and activations follow one another in one sequence.
    (r"head\.classification_head\.conv\.(\d+)\.", lambda match: f"head.class_tower.{_in_blocks_of_three(match[1])}."),
    (r"head\.regression_head\.conv\.(\d+)\.", lambda match: f"head.box_tower.{_in_blocks_of_three(match[1])}."),
    (r"head\.regression_head\.bbox_reg\.", r"head.box_distances."),
    (r"head\.regression_head\.bbox_ctrness\.", r"head.quality."),
)
_BACKBONE_AND_AUXILIARY_NAMES: _NamePatterns = (
    (r"backbone\.", r"backbone."),
    (r"aux_classifier\.0\.", r"head.auxiliary.convolution.0."),
    (r"aux_classifier\.1\.", r"head.auxiliary.convolution.1."),
    (r"aux_classifier\.4\.", r"head.auxiliary.logits."),
)
_DEEPLAB_NAMES: _NamePatterns = (
    *_BACKBONE_AND_AUXILIARY_NAMES,
    (r"classifier\.0\.convs\.([0-3])\.", r"head.aspp.branches.\1."),
    (r"classifier\.0\.convs\.4\.1\.", r"head.aspp.pooling.convolution."),
    (r"classifier\.0\.convs\.4\.2\.", r"head.aspp.pooling.norm."),
    (r"classifier\.0\.project\.", r"head.aspp.project."),
    (r"classifier\.1\.", r"head.decoder.0.0."),
    (r"classifier\.2\.", r"head.decoder.0.1."),
    (r"classifier\.4\.", r"head.logits."),
)
_FCN_NAMES: _NamePatterns = (
    *_BACKBONE_AND_AUXILIARY_NAMES,
    (r"classifier\.0\.", r"head.classifier.convolution.0."),
    (r"classifier\.1\.", r"head.classifier.convolution.1."),
    (r"classifier\.4\.", r"head.classifier.logits."),
)


def from_torchvision_detector(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of a detector of torchvision for a ``Model`` with a ResNet, an FPN and the same head.

    The head needs the conventions of :mod:`vertebra.heads` that are named here. Models called ``_v2`` have batch norm
    in the backbone and, if they are R-CNNs, in the neck; the others have frozen norms in the backbone.

    - ``fasterrcnn_resnet*_fpn``, ``maskrcnn_resnet*_fpn``, ``*_v2``: ``TORCHVISION``, ``TORCHVISION_MASK``,
      ``TORCHVISION_V2``; ``keypointrcnn_resnet*_fpn``: ``TORCHVISION_KEYPOINT``.
    - ``retinanet_resnet*_fpn``, ``*_v2``: ``TORCHVISION_RETINANET``, ``TORCHVISION_RETINANET_V2``.
    - ``fcos_resnet*_fpn``: ``TORCHVISION_FCOS``.

    Raises :class:`CheckpointError` for other names.
    """
    if any(name.startswith("head.regression_head.bbox_ctrness.") for name in state_dict):
        return _rename(state_dict, _FCOS_NAMES, "torchvision's FCOS with a ResNet-FPN")
    if any(name.startswith("head.classification_head.") for name in state_dict):
        return _convert_retinanet(state_dict)
    return _convert_rcnn(state_dict)


def _convert_rcnn(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    converted = _rename(state_dict, _RCNN_NAMES, "torchvision's Faster, Mask or Keypoint R-CNN with a ResNet-FPN")
    if "neck.lateral.c2.1.weight" not in converted:  # without a norm our convolutions are not in a Sequential
        converted = {re.sub(r"^(neck\.\w+\.\w\d)\.0\.", r"\1.", name): tensor for name, tensor in converted.items()}
    for name in ("head.mask.logits.weight", "head.mask.logits.bias"):
        if name in converted:
            converted[name] = converted[name][1:]  # torchvision predicts a mask for the background too
    return converted


def _convert_retinanet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    converted = _rename(state_dict, _RETINANET_NAMES, "torchvision's RetinaNet with a ResNet-FPN")
    for name, tensor in converted.items():
        if name.startswith(("head.class_logits.", "head.box_offsets.")):
            # Each cell has three ratios of three sizes; torchvision orders anchors by ratio first, ours by size.
            converted[name] = tensor.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)
    return converted


def from_torchvision_segmenter(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of torchvision's ``deeplabv3_resnet*`` or ``fcn_resnet*`` for a ``Model`` with that head.

    Build the model with a ResNet with ``output_stride=8``, the neck ``passthrough``, and the head config
    ``vertebra.heads.TORCHVISION_DEEPLAB`` or ``FCNConfig``; it needs an auxiliary classifier if the weights have one,
    as published weights do. Raises :class:`CheckpointError` for an unknown tensor name.
    """
    if any(name.startswith("classifier.0.convs.") for name in state_dict):
        return _rename(state_dict, _DEEPLAB_NAMES, "torchvision's DeepLabv3 with a ResNet")
    return _rename(state_dict, _FCN_NAMES, "torchvision's FCN with a ResNet")


def _rename(state_dict: Mapping[str, Tensor], patterns: _NamePatterns, source: str) -> dict[str, Tensor]:
    """Rename each tensor by the first pattern that matches its name; raise CheckpointError if none does."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in patterns:
            renamed, count = re.subn("^" + pattern, replacement, name)
            if count:
                converted[renamed] = tensor
                break
        else:
            raise CheckpointError(f"{name} is not a tensor of {source}")
    return converted
