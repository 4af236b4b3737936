"""Test of one timm model as a backbone with every head; ``vertebra compat`` runs it in a child process."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch

from vertebra.backbones import Backbone, create_backbone
from vertebra.heads import (
    CASCADE,
    HEADS,
    ArcFaceConfig,
    BoxBranchConfig,
    ClassificationConfig,
    DeepLabConfig,
    FCNConfig,
    FCOSConfig,
    HeadConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    PanopticFPNConfig,
    PointHeadConfig,
    PointRendBranchConfig,
    RCNNConfig,
    RetinaNetConfig,
    RPNConfig,
    SemanticFPNConfig,
    UNetConfig,
    YOLOXConfig,
)
from vertebra.models import Model
from vertebra.necks import NECKS, Neck, PassthroughConfig, default_neck
from vertebra.ops import RoIAlignConfig, total_loss
from vertebra.structures import FeatureInfo, Images, Instances, UsageError

IMAGE_SIZES = ((64, 96), (70, 66))  # height and width in pixels of the two images of the batch
NUM_CLASSES, NUM_STUFF = 3, 1
KEYPOINTS = ("top", "bottom")
LEARNING_RATES = (1e-3, 1e-4, 1e-5, 1e-6)


def try_model(name: str) -> dict[str, Any]:
    """Return a model's record: its size, levels, options and neck, and for each head ``yes`` or why it fails."""
    torch.set_num_threads(1)
    backbone, options = _create_backbone(name)
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    neck = default_neck(backbone.feature_info).replace(channels=64)
    pyramid, levels = (NECKS.build(config, backbone.feature_info) for config in (neck, PassthroughConfig()))
    on_levels, on_pyramid = heads_on_levels(backbone.feature_info), heads_on_pyramid(pyramid.feature_info)
    if len(backbone.feature_info) < 2:
        on_pyramid["unet"] = UNetConfig(channels=32, levels=_region_levels(pyramid.feature_info))
        del on_levels["unet"]
    heads = {name: _try_head(backbone, pyramid, config) for name, config in on_pyramid.items()}
    heads |= {name: _try_head(backbone, levels, config) for name, config in on_levels.items()}
    return {
        "parameters": round(millions, 1),
        "levels": {level: [info.channels, info.stride] for level, info in backbone.feature_info.items()},
        "options": options,
        "neck": neck.name,
        "heads": heads,
    }


def _create_backbone(name: str) -> tuple[Backbone, dict[str, Any]]:
    """Return a backbone and the options it needs: a patch size or an image size if the defaults are refused."""
    published = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = published.input_size[-1] if published is not None else 224
    first_error = None
    choices: Sequence[dict[str, Any]] = ({}, {"patch_size": 16}, {"image_size": size})
    for options in choices:
        try:
            return create_backbone(f"timm/{name}", **options), options
        except UsageError as error:
            first_error = first_error or error
    assert first_error is not None, "no choice of options was accepted"
    raise first_error


def heads_on_pyramid(feature_info: Mapping[str, FeatureInfo]) -> dict[str, HeadConfig]:
    """Return small heads that read the levels of a neck, by the name of their column in the table.

    The R-CNNs are trained on every anchor and proposal, so that random sampling changes no loss; one anchor per cell
    and small regions keep that cheap.
    """
    unlimited = (10_000, 10_000)
    rpn = RPNConfig(anchor_ratios=(1.0,), pre_nms=unlimited, post_nms=unlimited, nms_threshold=1.0, samples=10_000)
    pool = RoIAlignConfig(size=4, sampling_ratio=1)
    small_box: Mapping[str, Any] = {"fc": (32,), "samples": 4096, "pool": pool}
    box = BoxBranchConfig(**small_box)
    mask_rcnn = RCNNConfig(rpn=rpn, box=box, mask=MaskBranchConfig(pool=pool, convolutions=(16,)))
    semantic_fpn = SemanticFPNConfig(channels=32, levels=_region_levels(feature_info))
    keypoint = KeypointBranchConfig(names=KEYPOINTS, pool=pool, convolutions=(16,))
    finest = next(iter(feature_info))
    point_rend = PointRendBranchConfig(
        levels=(finest,), grid=4, fc=(32,), point_head=PointHeadConfig(channels=(16,), points=784)
    )
    return {
        "rcnn": mask_rcnn,
        "keypoint": RCNNConfig(rpn=rpn, box=box, keypoint=keypoint),
        "point_rend": RCNNConfig(rpn=rpn, box=box, point_rend=point_rend),
        "cascade": CASCADE.replace(
            rpn=rpn, box=small_box, cascade=tuple(stage.replace(**small_box) for stage in CASCADE.cascade)
        ),
        "retinanet": RetinaNetConfig(convolutions=1, norm="group", normalizer="batch"),
        "fcos": FCOSConfig(convolutions=1),
        "yolox": YOLOXConfig(convolutions=1),
        "semantic_fpn": semantic_fpn,
        "panoptic": PanopticFPNConfig(instances=mask_rcnn, semantic=semantic_fpn),
    }


def _region_levels(feature_info: Mapping[str, FeatureInfo]) -> tuple[str, ...]:
    """Return the levels of a neck that are not coarser than ``p5``."""
    return tuple(level for level in feature_info if level <= "p5")


def heads_on_levels(feature_info: Mapping[str, FeatureInfo]) -> dict[str, HeadConfig]:
    """Return small heads that read the backbone's levels, by the name of their column in the table.

    DeepLab and FCN read the deepest level with stride 16, or with the nearest stride if there is none.
    """
    strides = {level: info.stride for level, info in feature_info.items()}
    chosen_stride = 16 if 16 in strides.values() else min(strides.values(), key=lambda stride: abs(stride - 16))
    level = [level for level, stride in strides.items() if stride == chosen_stride][-1]
    return {
        "deeplab": DeepLabConfig(level=level, rates=(6, 12, 18), channels=32),
        "fcn": FCNConfig(level=level),
        "unet": UNetConfig(channels=32),
        "classification": ClassificationConfig(),
        "embedding": ArcFaceConfig(channels=32, norm="none"),
    }


def num_classes_of(config: HeadConfig) -> int | dict[str, int]:
    """Return the number of classes in the targets of :func:`make_batch`; a dict by task for a head with several."""
    if isinstance(config, PanopticFPNConfig):
        return {"panoptic": NUM_CLASSES + NUM_STUFF, "detection": NUM_CLASSES, "semantic": NUM_STUFF + 1}
    return NUM_CLASSES


def _try_head(backbone: Backbone, neck: Neck, config: HeadConfig) -> str:
    """Return ``yes`` if the loss falls in both of two steps with any of ``LEARNING_RATES``, otherwise the reason."""
    losses: list[float] = []
    try:
        head = HEADS.build(config, backbone.feature_info | neck.feature_info, num_classes_of(config))
        model = Model(backbone, neck, head)
        start = copy.deepcopy(model.state_dict())
        for rate in LEARNING_RATES:
            model.load_state_dict(start)
            losses = _take_two_steps(model, head.targets(), rate)
            if losses[0] > losses[1] > losses[2]:
                return "yes"
    except Exception as error:
        return describe_error(error)
    return "the loss does not fall: " + ", ".join(f"{loss:.4f}" for loss in losses)


def describe_error(error: Exception) -> str:
    """Return an error as one line, with its class name unless it is a VertebraError."""
    return getattr(error, "what", "") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _take_two_steps(model: Model, task: str, rate: float) -> list[float]:
    """Train two steps on the same two images; return the loss before, between and after the steps."""
    images, targets = make_batch(model.size_divisor, task)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)
    losses = []
    model.train()
    for _ in range(3):
        torch.manual_seed(0)  # the same random samples and dropout masks in every step
        loss = total_loss(model(images, targets))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def make_batch(divisor: int, target_task: str) -> tuple[Images, Sequence[Any]]:
    """Return two random images, padded to a multiple of ``divisor``, and their targets for ``target_task``."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in IMAGE_SIZES]
    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30.0, 10.0, 60.0, 60.0]])
    masks = [torch.zeros(2, *size, dtype=torch.bool) for size in IMAGE_SIZES]
    for mask in masks:
        mask[0, 4:44, 4:40] = mask[1, 10:60, 30:60] = True
    keypoints = torch.tensor([[[20.0, 8.0, 2.0], [22.0, 40.0, 1.0]], [[45.0, 14.0, 2.0], [0.0, 0.0, 0.0]]])
    objects = [
        Instances(boxes, torch.tensor([0, 2]), masks[0], keypoints=keypoints),
        Instances(boxes[:1], torch.tensor([1]), masks[1][:1], keypoints=keypoints[:1]),
    ]
    maps = [mask.any(dim=0).long() for mask in masks]
    targets: Mapping[str, Sequence[Any]] = {
        "detection": objects,
        "semantic": maps,
        "panoptic": [{"detection": pair[0], "semantic": pair[1]} for pair in zip(objects, maps, strict=True)],
        "classification": [torch.tensor(0), torch.tensor(2)],
    }
    return Images.from_list(pixels, divisor), targets[target_task]
