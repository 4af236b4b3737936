"""The box branch of Faster R-CNN with an FPN: RoIAlign, two fully connected layers, class and box (1612.03144 4.2).

``forward``, ``loss``, ``refine`` and ``detect`` are separate steps, so that branches can be chained: a cascade
(1712.00726) calls ``forward`` and ``loss``, and passes the boxes from ``refine`` to the next branch.
"""

import itertools
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    IGNORED,
    NO_CANDIDATE,
    POSITIVE,
    Match,
    NormKind,
    PaddedDetections,
    PaddedTargets,
    RoIAlignConfig,
    all_reduce_mean,
    assign_boxes,
    clip_boxes,
    decode_boxes,
    draw_image_seeds,
    encode_boxes,
    gather_rows,
    sample_labels,
    select_detections,
    shorter_sides,
    top_class_scores,
    uniform_from_seeds,
)
from ..structures import Config, FeatureInfo, Features, Images, NonNegative, UnitInterval
from .class_rows import ClassRows
from .regions import Proposals, RegionPooler, RegionRows, RegionSamples, region_convolutions, values_of_labels


class BoxBranchConfig(Config):
    """The options of the box branch. Defaults are detectron2's for ResNet-FPN; differences in torchvision are noted."""

    levels: tuple[str, ...] | None = None
    """The levels to read. None: ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig()
    convolutions: tuple[PositiveInt, ...] = ()
    """Channels of 3x3 convolutions before the fully connected layers; four with 256 channels for training from scratch
    (1803.08494 section 4.3)."""
    norm: NormKind = "none"
    """The norm after each of these convolutions."""
    fc: tuple[int, ...] = (1024, 1024)
    """Widths of the fully connected layers."""
    initialization: Literal["normal", "uniform"] = "normal"
    """Initial weights of the class logits and box offsets. ``normal``: normal with standard deviations of 0.01 and
    0.001, and uniform within sqrt(3 / inputs) in the fully connected layers (detectron2). ``uniform``: uniform within
    1 / sqrt(inputs) in all of these layers, as torch initializes linear layers (torchvision). The outputs are then
    larger, and scores after a few hundred steps may be better (docs/learning.md)."""
    samples: int = Field(default=512, gt=0)
    """Number of proposals sampled per image for the losses."""
    positive_fraction: UnitInterval = 0.25
    """Maximum fraction of positive samples."""
    match_threshold: UnitInterval = 0.5
    """A proposal is positive if its IoU with an object is at least this, otherwise background."""
    ignore_coverage: UnitInterval = 0.5
    """A background proposal is ignored if at least this fraction of its area is inside an ignore region."""
    class_agnostic: bool = False
    """Predict one box per proposal for all classes, instead of one for each class."""
    background: Literal["last", "first"] = "last"
    """Position of the background's class logit. torchvision: ``first``, with box outputs for the background too."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """Multipliers of the encoded offsets (dx, dy, dw, dh)."""
    beta: NonNegative = 0.0
    """The point at which smooth L1 becomes linear, in encoded units; 0 is plain L1. torchvision: 1/9."""
    score_threshold: UnitInterval = 0.05
    """Detections with this score or a lower one are dropped before NMS."""
    nms_threshold: UnitInterval = 0.5
    """IoU above which NMS drops the box with the lower score, within each class."""
    max_detections: int = Field(default=100, gt=0)
    """Maximum number of detections per image."""
    max_candidates: int = Field(default=4000, gt=0)
    """Number of best (proposal, class) pairs that enter NMS; a fixed number keeps shapes fixed."""
    min_size: NonNegative = 0.0
    """Detections whose shorter side is below this are dropped, in pixels. torchvision: 1e-2."""

    @property
    def max_positives(self) -> int:
        """The maximum number of positive samples per image; positives come first in the samples."""
        return int(self.samples * self.positive_fraction)


class BoxOutput(NamedTuple):
    """The outputs of the box branch for each region."""

    logits: Float[Tensor, "b r k"]
    """Class logits; the background is always last, whatever the config."""
    offsets: Float[Tensor, "b r c 4"]
    """Box offsets for each class, or a single set for all classes if the branch is class-agnostic."""


class BoxBranch(nn.Module):
    """The box branch of an R-CNN: predicts a class and a refined box for each proposal."""

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: int,
        config: BoxBranchConfig = BoxBranchConfig(),
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.pool = RegionPooler("box branch", feature_info, config.levels, config.pool)
        self.convolutions = region_convolutions(self.pool.channels, config.convolutions, config.norm)
        channels = [self.pool.channels, *config.convolutions][-1]
        widths = [channels * config.pool.size**2, *config.fc]
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        self.fc = nn.ModuleList(layers)
        self.class_logits = nn.Linear(widths[-1], num_classes + 1)
        num_boxes = 1 if config.class_agnostic else num_classes + (config.background == "first")
        self.box_offsets = nn.Linear(widths[-1], 4 * num_boxes)
        self.class_rows = {"class_logits": ClassRows(background=config.background)}
        if not config.class_agnostic:
            background = config.background if config.background == "first" else None
            self.class_rows["box_offsets"] = ClassRows(per_class=4, background=background)
        if config.initialization == "normal":  # the other is that of nn.Linear
            for layer in layers:
                nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.normal_(self.class_logits.weight, std=0.01)
            nn.init.normal_(self.box_offsets.weight, std=0.001)
            for layer in (*layers, self.class_logits, self.box_offsets):
                nn.init.zeros_(layer.bias)

    def forward(self, features: Features, proposals: Proposals) -> BoxOutput:
        """Compute the class logits and box offsets of every proposal."""
        rows = RegionRows(proposals.valid)
        hidden = self.pool(features, rows.images, rows.take(proposals.boxes))
        hidden = self.convolutions(hidden).flatten(1)
        for layer in self.fc:
            hidden = F.relu(layer(hidden))
        logits, offsets = self.class_logits(hidden).float(), self.box_offsets(hidden).float().unflatten(1, (-1, 4))
        if self.config.background == "first":
            logits = logits.roll(-1, dims=1)
            offsets = offsets if self.config.class_agnostic else offsets[:, 1:]
        return BoxOutput(rows.pad(logits), rows.pad(offsets))

    @torch.no_grad()
    def sample(self, proposals: Proposals, targets: PaddedTargets) -> RegionSamples:
        """Sample the proposals for the losses; ground-truth boxes are added to the candidates, as in Fast R-CNN."""
        config = self.config
        candidates = torch.cat([proposals.boxes, targets.boxes], dim=1)
        usable = torch.cat([proposals.valid, targets.valid], dim=1)
        match = self._match(candidates, targets)
        labels = torch.where(usable, match.labels, IGNORED)
        keys = uniform_from_seeds(draw_image_seeds(len(labels), labels.device), labels.shape[1])
        sample = sample_labels(labels, config.samples, config.positive_fraction, keys)
        target_indices = match.target_indices.gather(1, sample.indices)
        boxes = gather_rows(candidates, sample.indices)
        return self._samples_of(Proposals(boxes, sample.valid), target_indices, sample.positive, targets)

    @torch.no_grad()
    def relabel(self, proposals: Proposals, targets: PaddedTargets) -> RegionSamples:
        """Match all proposals to objects, without sampling, as the later stages of a cascade do."""
        match = self._match(proposals.boxes, targets)
        labels = torch.where(proposals.valid, match.labels, IGNORED)
        proposals = proposals._replace(valid=labels != IGNORED)
        return self._samples_of(proposals, match.target_indices, labels == POSITIVE, targets)

    def _match(self, boxes: Float[Tensor, "b n 4"], targets: PaddedTargets) -> Match:
        thresholds = (self.config.match_threshold, self.config.match_threshold)
        return assign_boxes(boxes, targets, thresholds, ignore_coverage=self.config.ignore_coverage)

    def _samples_of(
        self,
        proposals: Proposals,
        target_indices: Int64[Tensor, "b s"],
        positive: Bool[Tensor, "b s"],
        targets: PaddedTargets,
    ) -> RegionSamples:
        """Return the proposals with the class and the box of their objects."""
        classes, target_boxes = targets.labels.gather(1, target_indices), gather_rows(targets.boxes, target_indices)
        return RegionSamples(
            boxes=proposals.boxes,
            valid=proposals.valid,
            labels=torch.where(positive, classes, self.num_classes),
            target_boxes=torch.where(positive[:, :, None], target_boxes, proposals.boxes),
            target_indices=target_indices,
        )

    def loss(self, output: BoxOutput, samples: RegionSamples) -> dict[str, Tensor]:
        """Compute the losses of ``output``, which ``forward`` returned for the boxes of ``samples``.

        ``loss_class`` is the cross-entropy over the classes and the background, ``loss_box`` the smooth L1 of the
        offsets of positive samples; both are divided by the number of valid samples. The metric ``box_positives`` is
        the number of positives per image.
        """
        count = all_reduce_mean(samples.valid.sum().float()).clamp(min=1)
        cross_entropy = F.cross_entropy(output.logits.flatten(0, 1), samples.labels.flatten(), reduction="none")
        positive = samples.labels < self.num_classes
        offsets = values_of_labels(output.offsets, samples.labels)
        target_offsets = encode_boxes(samples.target_boxes, samples.boxes, self.config.box_weights)
        error = F.smooth_l1_loss(offsets, target_offsets, reduction="none", beta=self.config.beta)
        return {
            "loss_class": (cross_entropy * samples.valid.flatten()).sum() / count,
            "loss_box": (error * positive[:, :, None]).sum() / count,
            "box_positives": positive.sum(dim=1),
        }

    @torch.no_grad()
    def refine(
        self,
        output: BoxOutput,
        proposals: Proposals,
        images: Images,
        labels: Int64[Tensor, "b r"] | None = None,
    ) -> Proposals:
        """Return the proposals with boxes refined by ``output``, which ``forward`` returned for them, in their order.

        The result is the input of the next stage in a cascade. If the branch has a box for each class, each proposal
        gets the box of its label or, without labels and for background, that of its most likely class. Boxes without
        an area become invalid.
        """
        classes = output.logits[:, :, : self.num_classes].argmax(dim=2)
        if labels is not None:
            classes = torch.where(labels < self.num_classes, labels, classes)
        offsets = values_of_labels(output.offsets, classes)
        boxes = clip_boxes(decode_boxes(offsets, proposals.boxes, self.config.box_weights), images.sizes)
        valid = proposals.valid & (shorter_sides(boxes) > 0)
        return Proposals(torch.where(valid[:, :, None], boxes, 0), valid)

    def scores(self, output: BoxOutput) -> Float[Tensor, "b r c"]:
        """Return the probability of each class, without the background."""
        return output.logits.softmax(dim=2)[:, :, : self.num_classes]

    def detect(
        self, output: BoxOutput, scores: Float[Tensor, "b r c"], proposals: Proposals, images: Images
    ) -> PaddedDetections:
        """Return the best detections of each image after class-wise NMS.

        ``output`` gives the boxes. ``scores`` are usually its own; a cascade passes the mean over its stages.
        """
        config, num_classes = self.config, self.num_classes
        boxes = decode_boxes(output.offsets, proposals.boxes[:, :, None], config.box_weights)
        boxes = clip_boxes(boxes, images.sizes)
        # This comparison is also False for boxes with NaN.
        usable = (scores > config.score_threshold) & (shorter_sides(boxes) >= config.min_size)
        usable &= proposals.valid[:, :, None]
        best = top_class_scores(scores.masked_fill(~usable, NO_CANDIDATE), config.max_candidates)
        box_rows = best.indices if config.class_agnostic else best.indices * num_classes + best.labels
        boxes = gather_rows(boxes.flatten(1, 2), box_rows)
        return select_detections(boxes, best.scores, best.labels, config.nms_threshold, config.max_detections)
