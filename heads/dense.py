"""Parts that all dense heads use: the convolutions before their outputs, and the selection of detections."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor, nn

from ..ops import (
    IGNORED,
    NO_CANDIDATE,
    POSITIVE,
    ActivationKind,
    Match,
    NormKind,
    PaddedDetections,
    PaddedTargets,
    clip_boxes,
    conv_block,
    gather_rows,
    ignore_regions,
    norm_layer,
    select_detections,
    shorter_sides,
    top_class_scores,
)
from ..structures import Config, Detections, FeatureInfo, Features, Images, NonNegative, UnitInterval
from .base import DetectionHead, PredictsTensors, require_equal_channels, require_levels
from .regions import LEVELS

AnchorSizes = Annotated[tuple[tuple[PositiveFloat, ...], ...], Field(min_length=1)]
"""Anchor sizes in pixels for each level."""
AnchorRatios = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
"""Aspect ratios of anchors, height / width."""


def _require_ascending(thresholds: tuple[float, float]) -> tuple[float, float]:
    if thresholds[0] > thresholds[1]:
        raise ValueError(f"the first threshold must not be above the second, got {thresholds}")
    return thresholds


MatchThresholds = Annotated[tuple[UnitInterval, UnitInterval], AfterValidator(_require_ascending)]
"""An anchor is negative if its IoU is below the first threshold, and positive if it is at least the second."""

PRIOR = 0.01
"""The probability that an untrained head gives to every class (1708.02002 section 3.3): the many negatives would
otherwise drown the positives in the first steps."""


class PyramidLevels(NamedTuple):
    """The levels of a pyramid that a dense head reads, all with the same number of channels."""

    names: tuple[str, ...]
    strides: tuple[int, ...]
    channels: int

    @classmethod
    def choose(
        cls, reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str] | None
    ) -> "PyramidLevels":
        """Select the levels that a head reads: ``levels``, or every ``p`` level for None.

        ``reader`` is the name of the head for error messages. Raises ValueError if a level is missing, the levels are
        not ordered from fine to coarse, or their channels differ.
        """
        if levels is None:
            levels = [name for name in feature_info if name.startswith("p")] or LEVELS
        names = tuple(levels)
        require_levels(reader, feature_info, names)
        strides = tuple(feature_info[name].stride for name in names)
        if not names or any(coarse <= fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(f"{reader} needs levels from fine to coarse; got {names} with strides {strides}")
        return cls(names, strides, require_equal_channels(reader, feature_info, names))

    def read(self, features: Features) -> list[Float[Tensor, "b c _ _"]]:
        """Return the maps of these levels."""
        return [features[name] for name in self.names]

    def strides_of_points(self, points: Sequence[Float[Tensor, "_ 2"]]) -> Float[Tensor, " n"]:
        """Return the stride of every point of all levels; ``points`` holds the points of each level."""
        strides = [level.new_full((len(level),), stride) for level, stride in zip(points, self.strides, strict=True)]
        return torch.cat(strides)


def grids_of(maps: Sequence[Float[Tensor, "b c _ _"]]) -> list[tuple[int, int]]:
    """Return the (rows, columns) of each map."""
    return [(level.shape[2], level.shape[3]) for level in maps]


class DenseSelectionConfig(Config):
    """How a dense head chooses the detections of an image. The defaults are RetinaNet's (1708.02002 section 4.1)."""

    score_threshold: UnitInterval = 0.05
    max_candidates: int = Field(default=1000, gt=0)
    """The best (reference, class) pairs of each level that enter suppression."""
    nms_threshold: UnitInterval = 0.5
    max_detections: int = Field(default=100, gt=0)
    min_size: NonNegative = 0.0
    """Detections with a shorter side, in pixels, are dropped."""
    clip: Literal["before", "after"] = "before"
    """When boxes are clipped to the image: ``before`` suppression (torchvision), or ``after`` it, where boxes that lie
    outside the image are dropped (detectron2's RetinaNet)."""
    best_class_only: bool = False
    """Keep at most one detection per anchor or point, that of its highest-scoring class, as in YOLOX."""


class DenseHead(DetectionHead, PredictsTensors[Detections]):
    """Base class of detectors with one stage, whose predictions are detections without further outputs."""

    @abstractmethod
    def detect(self, features: Features, images: Images) -> PaddedDetections:
        """Return a fixed number of detections per image: in a graph, the shapes follow from the config."""

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the boxes, labels, scores and the number of detections of each image."""
        return self.detect(features, images).tensors()

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[Detections]:
        """Return the detections of each image."""
        return PaddedDetections.from_tensors(tensors).unpad()

    def predict(self, features: Features, images: Images) -> list[Detections]:
        """Return the detections of each image, best first."""
        return self.detect(features, images).unpad()


@runtime_checkable
class DenseLevel(Protocol):
    """A head's output on one level of the pyramid."""

    def scores(self) -> Float[Tensor, "b n c"]:
        """Return the score of each class, 0..1, for every reference."""
        ...

    def boxes(self, indices: Int64[Tensor, "b k"]) -> Float[Tensor, "b k 4"]:
        """Return the boxes of some references, which may exceed the image."""
        ...


def select_on_levels(
    levels: Sequence[DenseLevel],
    sizes: Int64[Tensor, "b 2"],
    config: DenseSelectionConfig,
    factors: Sequence[Float[Tensor, "b _ 1"]] | None = None,
) -> PaddedDetections:
    """Return the best detections of each image: the best of every level, then suppression within each class.

    ``sizes`` are the (height, width) of the images. ``factors`` multiply the scores of the references of each level
    after their selection; None: the scores stay as they are.
    """
    boxes, scores, labels = [], [], []
    for level, factor in zip(levels, factors or [None] * len(levels), strict=True):
        level_scores = level.scores()
        candidates = level_scores.masked_fill(~(level_scores > config.score_threshold), NO_CANDIDATE)
        if config.best_class_only:
            candidates = candidates.masked_fill(level_scores < level_scores.amax(dim=2, keepdim=True), NO_CANDIDATE)
        best = top_class_scores(candidates, config.max_candidates)
        level_boxes = level.boxes(best.indices)
        if config.clip == "before":
            level_boxes = clip_boxes(level_boxes, sizes)
        # A box with a NaN has no side that is long enough.
        usable = (shorter_sides(level_boxes) >= config.min_size) & (best.scores > NO_CANDIDATE)
        final_scores = best.scores if factor is None else best.scores * gather_rows(factor, best.indices)[:, :, 0]
        boxes.append(level_boxes)
        scores.append(final_scores.masked_fill(~usable, NO_CANDIDATE))
        labels.append(best.labels)
    selected = select_detections(
        torch.cat(boxes, dim=1),
        torch.cat(scores, dim=1),
        torch.cat(labels, dim=1),
        config.nms_threshold,
        config.max_detections,
    )
    return selected if config.clip == "before" else _clip_selected(selected, sizes)


def _clip_selected(detections: PaddedDetections, sizes: Int64[Tensor, "b 2"]) -> PaddedDetections:
    """Clip detections to their image; those that lie outside become padding, which comes last."""
    boxes = clip_boxes(detections.boxes, sizes)
    valid = detections.valid & (shorter_sides(boxes) > 0)
    order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    return PaddedDetections(
        gather_rows(boxes * valid[:, :, None], order),
        detections.labels.gather(1, order),
        torch.where(valid, detections.scores, 0).gather(1, order),
        valid.gather(1, order),
    )


class PointTargets(NamedTuple):
    """The object that is assigned to each point of every image."""

    known: Bool[Tensor, "b n"]
    """False for points that are ignored, because an ignore region covers them."""
    positive: Bool[Tensor, "b n"]
    labels: Int64[Tensor, "b n"]
    """The class of the assigned object; arbitrary for a point that is not positive."""
    boxes: Float[Tensor, "b n 4"]
    """The box of the assigned object; arbitrary for a point that is not positive."""


def point_targets(
    match: Match,
    points: Float[Tensor, "n 2"],
    strides: Float[Tensor, " n"],
    targets: PaddedTargets,
    ignore_coverage: float,
) -> PointTargets:
    """Return the targets of points, given the objects that ``match`` assigns to them.

    The cell of a point is the square around it whose sides are its stride. A negative point is ignored if at least the
    fraction ``ignore_coverage`` of its cell is inside an ignore region.
    """
    labels = ignore_regions(match.labels, squares_around(points, strides), targets.ignored, ignore_coverage)
    return PointTargets(
        labels != IGNORED,
        labels == POSITIVE,
        targets.labels.gather(1, match.target_indices),
        gather_rows(targets.boxes, match.target_indices),
    )


def squares_around(points: Float[Tensor, "n 2"], sides: Float[Tensor, " n"]) -> Float[Tensor, "n 4"]:
    """Return the squares centered on points, with the given side lengths in pixels."""
    half = sides[:, None] / 2
    return torch.cat([points - half, points + half], dim=1)


def dense_tower(
    channels: int, depth: int, norm: NormKind, bias: bool | None = None, activation: ActivationKind = "relu"
) -> nn.Sequential:
    """Build ``depth`` 3x3 convolutions, each with a norm and an activation.

    ``bias`` None gives the convolutions a bias if they have no norm.
    """
    layer = norm_layer(norm)
    tower = nn.Sequential(*(conv_block(channels, channels, 3, layer, activation, bias=bias) for _ in range(depth)))
    initialize_dense(tower)
    return tower


def initialize_dense(part: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 0.01), and set biases to zero (1708.02002 section 4.1)."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_prior(class_logits: nn.Conv2d) -> None:
    """Set the bias of class logits so that every class has the probability ``PRIOR``."""
    assert class_logits.bias is not None, "class logits have a bias"
    nn.init.constant_(class_logits.bias, math.log(PRIOR / (1 - PRIOR)))
