"""The box branch of Faster R-CNN on a pyramid: RoIAlign, two fully connected layers, class and box (1612.03144 4.2)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    IGNORED,
    POSITIVE,
    NormKind,
    RoIAlignConfig,
    all_reduce_mean,
    class_nms_mask,
    clip_boxes,
    decode_boxes,
    draw_image_seeds,
    encode_boxes,
    ignore_regions,
    match_boxes,
    sample_labels,
    uniform_from_seed,
)
from ..structures import Config, FeatureInfo, Features, Images, Instances
from .class_rows import ClassRows
from .region_pooler import RegionPooler, region_convolutions
from .rpn import Proposals


class BoxBranchConfig(Config):
    """Defaults are detectron2's for ResNet-FPN; where torchvision differs, the field says so."""

    levels: tuple[str, ...] | None = None
    """Levels to read; None takes ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig()
    convolutions: tuple[PositiveInt, ...] = ()
    """Channels of 3x3 convolutions before the fully connected layers; four of 256 where training begins from random
    weights (1803.08494 section 4.3)."""
    norm: NormKind = "none"
    """What follows each of them."""
    fc: tuple[int, ...] = (1024, 1024)
    """Widths of the fully connected layers."""
    samples: int = Field(default=512, gt=0)
    positive_fraction: float = Field(default=0.25, ge=0, le=1)
    match_threshold: float = 0.5
    ignore_coverage: float = 0.5
    """A background proposal with this share of its area inside an ignored region is not background."""
    class_agnostic: bool = False
    """One box per proposal for all classes, instead of one for each."""
    background: Literal["last", "first"] = "last"
    """Which class logit is the background's; torchvision puts it first and gives it box outputs of its own."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    beta: float = 0.0
    """Where smooth L1 turns linear, in encoded units; 0 is plain L1. torchvision: 1/9."""
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = Field(default=100, gt=0)
    max_candidates: int = Field(default=4000, gt=0)
    """Best (proposal, class) pairs that enter suppression; a fixed number keeps shapes fixed."""
    min_size: float = 0.0
    """Detections with a shorter side, in pixels, are dropped. torchvision: 1e-2."""

    @property
    def max_positives(self) -> int:
        """How many samples of an image can have an object; they come first."""
        return int(self.samples * self.positive_fraction)


class RegionSamples(NamedTuple):
    """Proposals drawn for the losses, with what each has to learn; padding where ``valid`` is False."""

    boxes: Float[Tensor, "b s 4"]
    valid: Bool[Tensor, "b s"]
    labels: Int64[Tensor, "b s"]  # num_classes for background
    goals: Float[Tensor, "b s 4"]  # the matched object's box, for positives
    objects: Int64[Tensor, "b s"]  # and its index in the image's target


class PaddedDetections(NamedTuple):
    """A fixed number of detections per image, best first; where ``valid`` is False the row is padding."""

    boxes: Float[Tensor, "b d 4"]
    labels: Int64[Tensor, "b d"]
    scores: Float[Tensor, "b d"]
    valid: Bool[Tensor, "b d"]
    masks: Float[Tensor, "b d s s"] | None = None
    """Probabilities on a grid over each box."""


class BoxBranch(nn.Module):
    """Proposals -> a class and a corrected box each."""

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
        box_rows = 1 if config.class_agnostic else num_classes + (config.background == "first")
        self.box_offsets = nn.Linear(widths[-1], 4 * box_rows)
        self.class_rows = {"class_logits": ClassRows(background=config.background)}
        if not config.class_agnostic:
            background = config.background if config.background == "first" else None
            self.class_rows["box_offsets"] = ClassRows(each=4, background=background)
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.box_offsets.weight, std=0.001)
        for layer in (*layers, self.class_logits, self.box_offsets):
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Features, boxes: Float[Tensor, "b r 4"]
    ) -> tuple[Float[Tensor, "b r k"], Float[Tensor, "b r c 4"]]:
        """Class logits (background last, whatever the config) and box offsets per class of every proposal."""
        hidden = self.convolutions(self.pool(features, boxes)).flatten(1)
        for layer in self.fc:
            hidden = F.relu(layer(hidden))
        logits = self.class_logits(hidden).float().unflatten(0, boxes.shape[:2])
        offsets = self.box_offsets(hidden).float().unflatten(1, (-1, 4)).unflatten(0, boxes.shape[:2])
        if self.config.background == "first":
            logits = logits.roll(-1, dims=2)
            offsets = offsets if self.config.class_agnostic else offsets[:, :, 1:]
        return logits, offsets

    @torch.no_grad()
    def sample(self, proposals: Proposals, targets: Sequence[Instances]) -> RegionSamples:
        """Draw proposals to learn from; the objects themselves are among the candidates (Fast R-CNN's habit)."""
        config, rows = self.config, []
        most = max(map(len, targets))
        seeds = draw_image_seeds(len(targets), proposals.boxes.device)
        for boxes, valid, target, seed in zip(*proposals, targets, seeds, strict=True):
            # Padded to the image with most objects, so that all images draw from equally many.
            padding = boxes.new_zeros(most - len(target), 4)
            candidates = torch.cat([boxes, target.boxes, padding])
            usable = torch.cat([valid, valid.new_ones(len(target)), valid.new_zeros(len(padding))])
            threshold = config.match_threshold
            match = match_boxes(candidates, target.boxes, (threshold, threshold))
            kinds = ignore_regions(match.labels, candidates, target.ignored, config.ignore_coverage)
            kinds = torch.where(usable, kinds, IGNORED)
            keys = uniform_from_seed(seed, len(kinds))
            indices, drawn = sample_labels(kinds, config.samples, config.positive_fraction, keys)
            positive = drawn & (kinds[indices] == POSITIVE)
            objects = match.objects[indices]
            labels, goals = torch.full_like(objects, self.num_classes), candidates[indices]
            if len(target):
                labels = torch.where(positive, target.labels[objects], labels)
                goals = torch.where(positive[:, None], target.boxes[objects], goals)
            rows.append((candidates[indices], drawn, labels, goals, objects))
        return RegionSamples(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def loss(self, features: Features, samples: RegionSamples) -> dict[str, Tensor]:
        """Cross-entropy over classes and background, smooth L1 on the boxes of positives; both per sample drawn."""
        logits, offsets = self(features, samples.boxes)
        count = all_reduce_mean(samples.valid.sum().float()).clamp(min=1)
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), samples.labels.flatten(), reduction="none")
        positive = samples.labels < self.num_classes
        if self.config.class_agnostic:
            own = offsets[:, :, 0]
        else:
            rows = samples.labels.clamp(max=self.num_classes - 1)
            own = offsets.gather(2, rows[:, :, None, None].expand(-1, -1, 1, 4))[:, :, 0]
        goals = encode_boxes(samples.goals, samples.boxes, self.config.box_weights)
        error = F.smooth_l1_loss(own, goals, reduction="none", beta=self.config.beta)
        return {
            "loss_class": (cross_entropy * samples.valid.flatten()).sum() / count,
            "loss_box": (error * positive[:, :, None]).sum() / count,
        }

    def detect(self, features: Features, proposals: Proposals, images: Images) -> PaddedDetections:
        """The best detections of each image after suppression within each class."""
        config = self.config
        logits, offsets = self(features, proposals.boxes)
        boxes = decode_boxes(offsets, proposals.boxes[:, :, None], config.box_weights)
        boxes = clip_boxes(boxes, images.sizes).expand(-1, -1, self.num_classes, -1).flatten(1, 2)
        sides = boxes[..., 2:] - boxes[..., :2]
        scores = logits.softmax(dim=2)[:, :, : self.num_classes]
        usable = proposals.valid[:, :, None] & (scores > config.score_threshold)
        usable = usable.flatten(1) & boxes.isfinite().all(dim=-1) & (sides.amin(dim=-1) >= config.min_size)
        # A score below zero marks what is no candidate; it sorts last and so suppresses nothing that is.
        scores = scores.flatten(1).masked_fill(~usable, -1.0)
        scores, indices = scores.topk(min(config.max_candidates, scores.shape[1]))
        boxes = boxes.gather(1, indices[:, :, None].expand(-1, -1, 4)).nan_to_num()
        labels = indices % self.num_classes
        kept = torch.stack(
            [class_nms_mask(*image, config.nms_threshold) for image in zip(boxes, scores, labels, strict=True)]
        )
        scores, order = scores.masked_fill(~kept, -1.0).topk(min(config.max_detections, scores.shape[1]))
        return PaddedDetections(
            boxes.gather(1, order[:, :, None].expand(-1, -1, 4)), labels.gather(1, order), scores, scores >= 0
        )
