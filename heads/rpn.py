"""The region proposal network (1506.01497) on a pyramid (1612.03144 section 4.1)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    POSITIVE,
    all_reduce_mean,
    cell_anchors,
    clip_boxes,
    decode_boxes,
    draw_image_seeds,
    encode_boxes,
    grid_anchors,
    ignore_regions,
    is_collecting_metrics,
    match_boxes,
    nms_mask,
    note,
    pairwise_iou,
    sample_labels,
    uniform_from_seed,
)
from ..structures import Config, FeatureInfo, Features, Images, Instances


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
    """torchvision: True."""
    anchor_stride: Literal["exact", "grid"] = "exact"
    """``grid`` is torchvision's: padded image size // grid size, so 61 instead of 64 on p6 of an 800 px image."""
    match_thresholds: tuple[float, float] = (0.3, 0.7)
    samples: int = Field(default=256, gt=0)
    positive_fraction: float = Field(default=0.5, ge=0, le=1)
    ignore_coverage: float = 0.5
    """A negative anchor with this share of its area inside an ignored region is not a negative."""
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


class Proposals(NamedTuple):
    """A fixed number of boxes per image, best first; where ``valid`` is False the row is padding."""

    boxes: Float[Tensor, "b r 4"]
    valid: Bool[Tensor, "b r"]


class DensePrediction(NamedTuple):
    """What the network says of every anchor, level by level: row by row, the cell's anchors innermost."""

    anchors: list[Float[Tensor, "_ 4"]]
    logits: list[Float[Tensor, "b _"]]
    offsets: list[Float[Tensor, "b _ 4"]]


class RPN(nn.Module):
    """Pyramid -> class-agnostic boxes that may hold an object."""

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: RPNConfig = RPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = config.levels or tuple(level for level in feature_info if level.startswith("p"))
        missing = [level for level in self.levels if level not in feature_info]
        if missing or not self.levels:
            raise ValueError(f"RPN reads levels {self.levels or 'p2, p3, ...'}; the pyramid has {tuple(feature_info)}")
        channels = {feature_info[level].channels for level in self.levels}
        if len(channels) > 1:
            raise ValueError(f"RPN shares one convolution over its levels, so they need equal channels; got {channels}")
        self.strides = [feature_info[level].stride for level in self.levels]
        sizes = config.anchor_sizes or tuple((8.0 * stride,) for stride in self.strides)
        if len(sizes) != len(self.levels):
            raise ValueError(f"anchor_sizes needs one tuple per level {self.levels}; got {len(sizes)}")
        anchors_per_cell = {len(level_sizes) * len(config.anchor_ratios) for level_sizes in sizes}
        if len(anchors_per_cell) > 1:
            raise ValueError(f"anchor_sizes needs the same number on every level; got {sizes}")
        for index, level_sizes in enumerate(sizes):
            cells = cell_anchors(level_sizes, config.anchor_ratios, config.round_anchors)
            self.register_buffer(f"cells_{index}", cells, persistent=False)
        width, count = channels.pop(), anchors_per_cell.pop()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.convolutions))
        self.objectness = nn.Conv2d(width, count, 1)
        self.offsets = nn.Conv2d(width, count * 4, 1)
        for layer in (*self.convolutions, self.objectness, self.offsets):
            nn.init.normal_(layer.get_parameter("weight"), std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, features: Features, images: Images) -> DensePrediction:
        """Score and correct every anchor."""
        anchors, logits, offsets = [], [], []
        for index, level in enumerate(self.levels):
            hidden = features[level]
            for convolution in self.convolutions:
                hidden = F.relu(convolution(hidden))
            grid = hidden.shape[-2:]
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float())
            offsets.append(self.offsets(hidden).permute(0, 2, 3, 1).reshape(len(hidden), -1, 4).float())
            stride = (self.strides[index], self.strides[index])
            if self.config.anchor_stride == "grid":
                stride = (images.pixels.shape[-2] // grid[0], images.pixels.shape[-1] // grid[1])
            anchors.append(grid_anchors(self.get_buffer(f"cells_{index}"), (grid[0], grid[1]), stride))
        return DensePrediction(anchors, logits, offsets)

    @torch.no_grad()
    def propose(self, dense: DensePrediction, images: Images, training: bool) -> Proposals:
        """The best boxes of each image after suppression within each level."""
        pre_nms, post_nms = (pair[0 if training else 1] for pair in (self.config.pre_nms, self.config.post_nms))
        boxes, scores = [], []
        for anchors, logits, offsets in zip(*dense, strict=True):
            best, indices = logits.topk(min(pre_nms, logits.shape[1]))
            chosen = offsets.gather(1, indices[:, :, None].expand(-1, -1, 4))
            level_boxes = clip_boxes(decode_boxes(chosen, anchors[indices]), images.sizes)
            sides = level_boxes[..., 2:] - level_boxes[..., :2]
            smallest = sides.amin(dim=-1)
            # A box that has left the image has no area; it is no proposal under either convention.
            usable = (smallest > 0) & (smallest >= self.config.min_size) & best.isfinite()
            level_scores = best.masked_fill(~usable, -torch.inf)
            kept = [
                nms_mask(image_boxes, image_scores, self.config.nms_threshold)
                for image_boxes, image_scores in zip(level_boxes, level_scores, strict=True)
            ]
            boxes.append(level_boxes)
            scores.append(level_scores.masked_fill(~torch.stack(kept), -torch.inf))
        all_scores = torch.cat(scores, dim=1)
        best, indices = all_scores.topk(min(post_nms, all_scores.shape[1]))
        chosen = torch.cat(boxes, dim=1).gather(1, indices[:, :, None].expand(-1, -1, 4))
        valid = best > -torch.inf
        return Proposals(chosen * valid[:, :, None], valid)

    def loss(self, dense: DensePrediction, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Objectness (binary cross-entropy) and box loss (smooth L1) of a random sample of anchors per image."""
        config = self.config
        anchors = torch.cat(dense.anchors)
        logits, offsets = torch.cat(dense.logits, dim=1), torch.cat(dense.offsets, dim=1)
        objectness, regression, drawn, positives = [], [], [], []
        seeds = draw_image_seeds(len(targets), logits.device)
        for image_logits, image_offsets, target, seed in zip(logits, offsets, targets, seeds, strict=True):
            match = match_boxes(anchors, target.boxes, config.match_thresholds, keep_best=True)
            labels = ignore_regions(match.labels, anchors, target.ignored, config.ignore_coverage)
            keys = uniform_from_seed(seed, len(labels))
            indices, valid = sample_labels(labels, config.samples, config.positive_fraction, keys)
            positive = valid & (labels[indices] == POSITIVE)
            cross_entropy = F.binary_cross_entropy_with_logits(
                image_logits[indices], positive.to(image_logits.dtype), reduction="none"
            )
            objectness.append((cross_entropy * valid).sum())
            drawn.append(valid.sum())
            positives.append(positive)
            if len(target):
                goal = encode_boxes(target.boxes[match.objects[indices]], anchors[indices])
                error = F.smooth_l1_loss(image_offsets[indices], goal, reduction="none", beta=config.beta)
                regression.append((error * positive[:, None]).sum())
            else:
                regression.append(image_offsets.sum() * 0)
        if is_collecting_metrics():
            note("rpn_positives", torch.stack(positives).sum(dim=1))
        if config.normalizer == "fixed":
            count = logits.new_tensor(config.samples * len(targets))
        else:
            count = all_reduce_mean(torch.stack(drawn).sum().float()).clamp(min=1)
        return {
            "loss_rpn_objectness": torch.stack(objectness).sum() / count,
            "loss_rpn_box": torch.stack(regression).sum() / count,
        }


def proposal_recall(proposals: Proposals, targets: Sequence[Instances], threshold: float) -> Bool[Tensor, " n"]:
    """Whether each object of all images has a proposal of at least this IoU."""
    found = [
        ((pairwise_iou(target.boxes, boxes) >= threshold) & valid).any(dim=1)
        for boxes, valid, target in zip(*proposals, targets, strict=True)
    ]
    return torch.cat(found)
