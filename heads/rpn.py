"""The region proposal network (1506.01497) on a pyramid (1612.03144 section 4.1)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    NO_CANDIDATE,
    PyramidAnchors,
    StrideRule,
    all_reduce_mean,
    assign_boxes,
    clip_boxes,
    decode_boxes,
    draw_image_seeds,
    encode_boxes,
    flatten_cells,
    gather_rows,
    pairwise_iou,
    sample_labels,
    shorter_sides,
    suppress,
    take_targets,
    top_scores,
    uniform_from_seed,
)
from ..structures import Config, FeatureInfo, Features, Images, Instances
from .dense import PyramidLevels, grids_of
from .regions import Proposals


class RPNConfig(Config):
    """Defaults are detectron2's for ResNet-FPN; where torchvision differs, the field says so."""

    levels: tuple[str, ...] | None = None
    """Levels to read; None takes every ``p`` level."""
    convolutions: PositiveInt = 1
    """3x3 convolutions before the outputs; two where training begins from random weights (torchvision's ``v2``)."""
    anchor_sizes: tuple[tuple[float, ...], ...] | None = None
    """Anchor sizes in pixels, per level; None gives each level one of 8 strides (32..512 on p2..p6)."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    round_anchors: bool = False
    """Whether anchors are rounded to whole pixels. torchvision: True."""
    anchor_stride: StrideRule = "exact"
    """``grid`` is torchvision's: padded image size // grid size, so 61 instead of 64 on p6 of an 800 px image."""
    match_thresholds: tuple[float, float] = (0.3, 0.7)
    """An anchor is negative below the first IoU, positive from the second up, ignored between."""
    samples: int = Field(default=256, gt=0)
    """Anchors per image that the losses are computed on."""
    positive_fraction: float = Field(default=0.5, ge=0, le=1)
    """The most of them that may be positive."""
    ignore_coverage: float = 0.5
    """A negative anchor with this fraction of its area inside an ignore region is not a negative."""
    beta: float = 0.0
    """Where smooth L1 turns linear, in encoded units; 0 is plain L1. torchvision: 1/9."""
    normalizer: Literal["fixed", "sampled"] = "fixed"
    """Losses are divided by ``samples`` x images (detectron2) or by the anchors really drawn (torchvision)."""
    pre_nms: tuple[int, int] = (2000, 1000)
    """Best anchors kept per level before suppression, in training and in prediction."""
    post_nms: tuple[int, int] = (1000, 1000)
    """Proposals per image after it. torchvision: (2000, 1000)."""
    nms_threshold: float = 0.7
    min_size: float = 0.0
    """Proposals with a shorter side, in pixels, are dropped. torchvision: 1e-3."""


class DensePrediction(NamedTuple):
    """The network's output for every anchor, level by level, in the order of :mod:`vertebra.ops.anchors`."""

    anchors: list[Float[Tensor, "_ 4"]]
    logits: list[Float[Tensor, "b _"]]
    offsets: list[Float[Tensor, "b _ 4"]]


class RPN(nn.Module):
    """Pyramid -> class-agnostic boxes that may hold an object."""

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: RPNConfig = RPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = PyramidLevels.choose("the RPN", feature_info, config.levels)
        strides, channels = self.levels.strides, self.levels.channels
        sizes = config.anchor_sizes or tuple((8.0 * stride,) for stride in strides)
        self.anchors = PyramidAnchors(
            strides, sizes, config.anchor_ratios, rounded=config.round_anchors, stride_rule=config.anchor_stride
        )
        per_cell = self.anchors.per_cell
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.convolutions)
        )
        self.objectness = nn.Conv2d(channels, per_cell, 1)
        self.offsets = nn.Conv2d(channels, per_cell * 4, 1)
        for layer in (*self.convolutions, self.objectness, self.offsets):
            nn.init.normal_(layer.get_parameter("weight"), std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, features: Features, images: Images) -> DensePrediction:
        """Score and correct every anchor."""
        logits, offsets = [], []
        maps = self.levels.read(features)
        for hidden in maps:
            for convolution in self.convolutions:
                hidden = F.relu(convolution(hidden))
            logits.append(flatten_cells(self.objectness(hidden), 1).flatten(1).float())
            offsets.append(flatten_cells(self.offsets(hidden), 4).float())
        return DensePrediction(self.anchors(grids_of(maps), images.padded_size), logits, offsets)

    @torch.no_grad()
    def propose(self, dense: DensePrediction, images: Images, training: bool) -> Proposals:
        """Return the best boxes of each image after suppression within each level.

        ``training`` chooses between the numbers of boxes that the config has for training and for prediction.
        """
        config = self.config
        pre_nms, post_nms = (counts[0 if training else 1] for counts in (config.pre_nms, config.post_nms))
        boxes, scores = [], []
        for anchors, logits, offsets in zip(*dense, strict=True):
            best = top_scores(logits, pre_nms)
            decoded = decode_boxes(gather_rows(offsets, best.indices), anchors[best.indices])
            level_boxes = clip_boxes(decoded, images.sizes)
            sides = shorter_sides(level_boxes)
            # A box that has left the image has no area; it is no proposal under either convention.
            usable = (sides > 0) & (sides >= config.min_size) & best.scores.isfinite()
            level_scores = best.scores.masked_fill(~usable, NO_CANDIDATE)
            boxes.append(level_boxes)
            scores.append(suppress(level_boxes, level_scores, config.nms_threshold))
        best = top_scores(torch.cat(scores, dim=1), post_nms)
        valid = best.scores > NO_CANDIDATE
        return Proposals(gather_rows(torch.cat(boxes, dim=1), best.indices) * valid[:, :, None], valid)

    def loss(self, dense: DensePrediction, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Return the losses of a random sample of anchors per image, and how many of them are positive.

        ``loss_rpn_objectness`` is binary cross-entropy, ``loss_rpn_box`` smooth L1 on the offsets of positives. To
        watch: ``rpn_positives`` per image.
        """
        config = self.config
        anchors = torch.cat(dense.anchors)
        logits, offsets = torch.cat(dense.logits, dim=1), torch.cat(dense.offsets, dim=1)
        objectness, regression, valid, positive = [], [], [], []
        seeds = draw_image_seeds(len(targets), logits.device)
        for image_logits, image_offsets, target, seed in zip(logits, offsets, targets, seeds, strict=True):
            match = assign_boxes(
                anchors, target, config.match_thresholds, keep_best=True, ignore_coverage=config.ignore_coverage
            )
            keys = uniform_from_seed(seed, len(anchors))
            sample = sample_labels(match.labels, config.samples, config.positive_fraction, keys)
            cross_entropy = F.binary_cross_entropy_with_logits(
                image_logits[sample.indices], sample.positive.to(image_logits.dtype), reduction="none"
            )
            sampled = anchors[sample.indices]
            target_boxes = take_targets(target.boxes, match.target_indices[sample.indices], default=sampled)
            target_offsets = encode_boxes(target_boxes, sampled)
            error = F.smooth_l1_loss(image_offsets[sample.indices], target_offsets, reduction="none", beta=config.beta)
            objectness.append((cross_entropy * sample.valid).sum())
            regression.append((error * sample.positive[:, None]).sum())
            valid.append(sample.valid)
            positive.append(sample.positive)
        if config.normalizer == "fixed":
            count = logits.new_tensor(config.samples * len(targets))
        else:
            count = all_reduce_mean(torch.stack(valid).sum().float()).clamp(min=1)
        return {
            "loss_rpn_objectness": torch.stack(objectness).sum() / count,
            "loss_rpn_box": torch.stack(regression).sum() / count,
            "rpn_positives": torch.stack(positive).sum(dim=1),
        }


def proposal_recall(proposals: Proposals, targets: Sequence[Instances], threshold: float) -> Bool[Tensor, " n"]:
    """Return for each object of all images whether a proposal overlaps it by at least ``threshold`` IoU."""
    recalled = [
        ((pairwise_iou(target.boxes, boxes) >= threshold) & valid).any(dim=1)
        for boxes, valid, target in zip(*proposals, targets, strict=True)
    ]
    return torch.cat(recalled)
