"""The region proposal network, RPN (1506.01497), on a feature pyramid (1612.03144 section 4.1)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    NO_CANDIDATE,
    Match,
    PaddedTargets,
    PyramidAnchors,
    Sample,
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
    suppress_levels,
    top_scores,
    trim_padding,
    uniform_from_seeds,
)
from ..structures import Config, FeatureInfo, Features, Images, NonNegative, UnitInterval
from .dense import AnchorRatios, AnchorSizes, MatchThresholds, PyramidLevels, grids_of
from .regions import Proposals


class RPNConfig(Config):
    """The options of the RPN. Defaults are detectron2's for ResNet-FPN; differences in torchvision are noted."""

    levels: tuple[str, ...] | None = None
    """The levels to read. None: all ``p`` levels."""
    convolutions: PositiveInt = 1
    """Number of 3x3 convolutions before the outputs; two for training from scratch (torchvision's ``v2``)."""
    anchor_sizes: AnchorSizes | None = None
    """Anchor sizes in pixels for each level. None: one size per level, 8 strides (32..512 on p2..p6)."""
    anchor_ratios: AnchorRatios = (0.5, 1.0, 2.0)
    """Aspect ratios of the anchors, height / width."""
    round_anchors: bool = False
    """Round anchors to whole pixels. torchvision: True."""
    anchor_stride: StrideRule = "exact"
    """Spacing of the anchors. torchvision: ``grid``."""
    match_thresholds: MatchThresholds = (0.3, 0.7)
    """An anchor is negative if its IoU is below the first threshold, positive if it is at least the second, otherwise
    ignored."""
    samples: int = Field(default=256, gt=0)
    """Number of anchors sampled per image for the losses."""
    positive_fraction: UnitInterval = 0.5
    """Maximum fraction of positive samples."""
    ignore_coverage: UnitInterval = 0.5
    """A negative anchor is ignored if at least this fraction of its area is inside an ignore region."""
    beta: NonNegative = 0.0
    """The point at which smooth L1 becomes linear, in encoded units; 0 is plain L1. torchvision: 1/9."""
    normalizer: Literal["fixed", "sampled"] = "fixed"
    """Divide the losses by ``samples`` x images (``fixed``, detectron2) or by the number of anchors actually sampled
    (``sampled``, torchvision)."""
    pre_nms: tuple[int, int] = (2000, 1000)
    """Number of best anchors per level before NMS, in (training, prediction)."""
    post_nms: tuple[int, int] = (1000, 1000)
    """Number of proposals per image after NMS, in (training, prediction). torchvision: (2000, 1000)."""
    nms_threshold: UnitInterval = 0.7
    """IoU above which NMS drops the proposal with the lower score, within each level."""
    min_size: NonNegative = 0.0
    """Proposals whose shorter side is below this are dropped, in pixels. torchvision: 1e-3."""

    def sizes_for(self, strides: Sequence[int]) -> AnchorSizes:
        """Return the anchor sizes of levels with these strides: ``anchor_sizes``, or if it is None one per level."""
        return self.anchor_sizes or tuple((8.0 * stride,) for stride in strides)


class DensePrediction(NamedTuple):
    """The RPN's outputs for every anchor, by level, in the order of :mod:`vertebra.ops.anchors`."""

    anchors: list[Float[Tensor, "_ 4"]]
    logits: list[Float[Tensor, "b _"]]
    offsets: list[Float[Tensor, "b _ 4"]]


class RPN(nn.Module):
    """Region proposal network: predicts class-agnostic boxes that may contain an object."""

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: RPNConfig = RPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = PyramidLevels.choose("the RPN", feature_info, config.levels)
        strides, channels = self.levels.strides, self.levels.channels
        self.anchors = PyramidAnchors(
            strides,
            config.sizes_for(strides),
            config.anchor_ratios,
            rounded=config.round_anchors,
            stride_rule=config.anchor_stride,
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
        """Compute the objectness logit and box offsets of every anchor."""
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
        """Return the best boxes of each image after NMS within each level.

        ``training`` selects the numbers of boxes for training or for prediction in ``pre_nms`` and ``post_nms``.
        """
        config = self.config
        pre_nms, post_nms = (counts[0 if training else 1] for counts in (config.pre_nms, config.post_nms))
        best = [top_scores(logits, pre_nms) for logits in dense.logits]
        rows = [level.indices for level in best]
        anchors = [level[indices] for level, indices in zip(dense.anchors, rows, strict=True)]
        offsets = [gather_rows(level, indices) for level, indices in zip(dense.offsets, rows, strict=True)]
        boxes = decode_boxes(torch.cat(offsets, dim=1), torch.cat(anchors, dim=1))
        boxes = clip_boxes(boxes, images.sizes)
        scores = torch.cat([level.scores for level in best], dim=1)
        sides = shorter_sides(boxes)
        # Boxes outside the image have no area after clipping; neither detectron2 nor torchvision keeps them.
        usable = (sides > 0) & (sides >= config.min_size) & scores.isfinite()
        scores = scores.masked_fill(~usable, NO_CANDIDATE)
        counts = [indices.shape[1] for indices in rows]
        boxes, scores = suppress_levels(boxes.split(counts, 1), scores.split(counts, 1), config.nms_threshold)
        chosen = top_scores(scores, post_nms)
        valid = chosen.scores > NO_CANDIDATE
        return trim_padding(Proposals(gather_rows(boxes, chosen.indices) * valid[:, :, None], valid))

    def loss(self, dense: DensePrediction, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute the losses on a random sample of anchors per image.

        ``loss_rpn_objectness`` is the binary cross-entropy, ``loss_rpn_box`` the smooth L1 of the offsets of positive
        anchors. The metric ``rpn_positives`` is the number of positives per image.
        """
        config, anchors = self.config, torch.cat(dense.anchors)
        match, sample = self._sample(anchors, targets)
        logits = torch.cat(dense.logits, dim=1).gather(1, sample.indices)
        offsets = gather_rows(torch.cat(dense.offsets, dim=1), sample.indices)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, sample.positive.to(logits.dtype), reduction="none")
        target_boxes = gather_rows(targets.boxes, match.target_indices.gather(1, sample.indices))
        target_offsets = encode_boxes(target_boxes, anchors[sample.indices])
        error = F.smooth_l1_loss(offsets, target_offsets, reduction="none", beta=config.beta)
        if config.normalizer == "fixed":
            count = float(config.samples * len(logits))
        else:
            count = all_reduce_mean(sample.valid.sum().float()).clamp(min=1)
        return {
            "loss_rpn_objectness": (cross_entropy * sample.valid).sum() / count,
            "loss_rpn_box": torch.where(sample.positive[:, :, None], error, 0).sum() / count,
            "rpn_positives": sample.positive.sum(dim=1),
        }

    @torch.no_grad()
    def _sample(self, anchors: Float[Tensor, "n 4"], targets: PaddedTargets) -> tuple[Match, Sample]:
        """Assign objects to anchors and sample anchors for the losses."""
        config = self.config
        match = assign_boxes(
            anchors, targets, config.match_thresholds, keep_best=True, ignore_coverage=config.ignore_coverage
        )
        keys = uniform_from_seeds(draw_image_seeds(len(targets.boxes), anchors.device), len(anchors))
        return match, sample_labels(match.labels, config.samples, config.positive_fraction, keys)


@torch.no_grad()
def proposal_recall(proposals: Proposals, targets: PaddedTargets, threshold: float) -> Float[Tensor, " n"]:
    """Return 1 for each object if a proposal has at least the IoU ``threshold`` with it, else 0; NaN for padding."""
    found = (pairwise_iou(targets.boxes, proposals.boxes) >= threshold) & proposals.valid[:, None]
    return torch.where(targets.valid, found.any(dim=2).float(), torch.nan).flatten()
