"""FCOS: points on a pyramid, each with a score per class and the distances to the sides of a box (1904.01355).

The improvements of the journal version are the defaults: center sampling, GIoU, and the centerness beside the boxes
(2006.09214).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from ..ops import (
    NormKind,
    PaddedDetections,
    PaddedTargets,
    StrideRule,
    all_reduce_mean,
    decode_distances,
    encode_distances,
    flatten_cells,
    gather_rows,
    grid_points,
    grid_stride,
    match_by_statistics,
    match_points,
    paired_giou,
    paired_iou,
)
from ..structures import FeatureInfo, Features, Images, NonNegative, UnitInterval
from .base import HEADS, HeadConfig, require_classes
from .class_rows import ClassRows
from .dense import (
    DenseHead,
    DenseSelectionConfig,
    PointTargets,
    PyramidLevels,
    dense_tower,
    grids_of,
    initialize_dense,
    initialize_prior,
    point_targets,
    select_on_levels,
    squares_around,
)

SIZE_RANGE = (4.0, 8.0)
"""The size range of a level: a point is positive if the largest distance to a side of the box lies between these many
strides. The finest level has no lower limit and the coarsest no upper one (1904.01355 section 3.2)."""
ANCHOR_STRIDES = 8
"""The side of the squares that ATSS compares with objects, in strides (1912.02424 section 3.1)."""


class FCOSConfig(HeadConfig):
    """The options of an FCOS. Defaults are the paper's; where torchvision differs, the field says so."""

    name: Literal["fcos"] = "fcos"
    levels: tuple[str, ...] | None = None
    """Levels to read; None takes every ``p`` level."""
    convolutions: int = Field(default=4, ge=0)
    """3x3 convolutions before the class logits, and as many before the boxes."""
    norm: NormKind = "group"
    """The norm that follows each of them."""
    tower_bias: bool = True
    """Give these convolutions a bias before their norm. MMDetection's first models: False."""
    points: Literal["center", "corner"] = "center"
    """Where the point of a cell lies. torchvision: ``corner``, the top left."""
    point_stride: StrideRule = "exact"
    """Spacing of the points. torchvision: ``grid``."""
    assign: Literal["center", "statistics"] = "center"
    """How objects are assigned to points. ``center``: by the distance from their center and the size range of each
    level. ``statistics``: by the IoU of a square of 8 strides around the point (ATSS, 1912.02424)."""
    center_radius: float | None = Field(default=1.5, gt=0)
    """Under ``center``, positive points are less than this many strides from the center of an object. None: anywhere in
    its box, as in the first version of the paper."""
    ignore_coverage: UnitInterval = 0.5
    """A negative point is ignored if at least this fraction of its cell is inside an ignore region."""
    distances: Literal["relu", "exponential"] = "relu"
    """How outputs become distances: ReLU times the stride, or the exponential (the paper's first version and
    MMDetection's first models)."""
    level_scales: bool = False
    """Multiply the outputs for distances by a learned factor for each level. The paper and MMDetection: True."""
    quality: Literal["centerness", "iou"] = "centerness"
    """The target of the branch that predicts the quality of a box: its centerness, or its IoU with the object."""
    quality_tower: Literal["box", "class"] = "box"
    """The convolutions that precede the quality branch: those of the boxes, or those of the classes (the paper's first
    version and MMDetection's first models)."""
    quality_in: Literal["selection", "score"] = "selection"
    """Where the quality counts. ``selection``: candidates are selected by the geometric mean of class probability and
    quality, which is their score. ``score``: they are selected by the class probability, and its product with the
    quality is their score (MMDetection)."""
    focal_alpha: UnitInterval = 0.25
    """The weight of positives in the focal loss; negatives have one minus it."""
    focal_gamma: NonNegative = 2.0
    """How strongly the focal loss discounts what is classified well already."""
    selection: DenseSelectionConfig = DenseSelectionConfig(score_threshold=0.2, nms_threshold=0.6)
    """The defaults are torchvision's."""


class FCOSLevel(NamedTuple):
    """The output for every point of one level."""

    points: Float[Tensor, "n 2"]
    logits: Float[Tensor, "b n c"]
    distances: Float[Tensor, "b n 4"]
    """Distances from the point to the left, top, right and bottom side of the box, in pixels of the resized image."""
    quality: Float[Tensor, "b n 1"]
    """The logit of the centerness or IoU."""

    quality_in: Literal["selection", "score"]
    """The config field of this name."""

    def scores(self) -> Float[Tensor, "b n c"]:
        """Return the values by which candidates are selected, for each class."""
        probabilities = self.logits.sigmoid()
        return probabilities if self.quality_in == "score" else (probabilities * self.quality.sigmoid()).sqrt()

    def boxes(self, indices: Int64[Tensor, "b k"]) -> Float[Tensor, "b k 4"]:
        """Return the boxes of some points."""
        return decode_distances(gather_rows(self.distances, indices), self.points[indices])


@HEADS.register("fcos", FCOSConfig)
class FCOSHead(DenseHead):
    """Pyramid -> boxes with a class and a score, without anchors."""

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: FCOSConfig = FCOSConfig()
    ) -> None:
        super().__init__()
        require_classes("FCOS", num_classes)
        self.config, self.num_classes = config, num_classes
        self.levels = PyramidLevels.choose("FCOS", feature_info, config.levels)
        channels = self.levels.channels
        bias = config.tower_bias or None  # without a norm there is always a bias
        self.class_tower = dense_tower(channels, config.convolutions, config.norm, bias)
        self.box_tower = dense_tower(channels, config.convolutions, config.norm, bias)
        self.class_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.box_distances = nn.Conv2d(channels, 4, 3, padding=1)
        self.quality = nn.Conv2d(channels, 1, 3, padding=1)
        count = len(self.levels.names) if config.level_scales else 0
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(count))
        for layer in (self.class_logits, self.box_distances, self.quality):
            initialize_dense(layer)
        initialize_prior(self.class_logits)
        self.class_rows = {"class_logits": ClassRows()}

    def forward(self, features: Features, images: Images) -> list[FCOSLevel]:
        """Compute class logits, distances and quality of every point."""
        maps = self.levels.read(features)
        outputs = []
        scales = list(self.scales) or [1.0] * len(maps)
        for grid, stride, level, scale in zip(grids_of(maps), self.levels.strides, maps, scales, strict=True):
            spacing = grid_stride(stride, grid, images.padded_size, self.config.point_stride)
            offset = 0.5 if self.config.points == "center" else 0.0
            box_hidden, class_hidden = self.box_tower(level), self.class_tower(level)
            distances = scale * flatten_cells(self.box_distances(box_hidden), 4).float()
            quality_hidden = box_hidden if self.config.quality_tower == "box" else class_hidden
            outputs.append(
                FCOSLevel(
                    grid_points(grid, spacing, level.device, offset),
                    flatten_cells(self.class_logits(class_hidden), self.num_classes).float(),
                    distances.exp() if self.config.distances == "exponential" else F.relu(distances) * stride,
                    flatten_cells(self.quality(quality_hidden), 1).float(),
                    self.config.quality_in,
                )
            )
        return outputs

    def padded_loss(self, features: Features, images: Images, targets: PaddedTargets) -> dict[str, Tensor]:
        """Return ``loss_class``, the focal loss of every point and class, ``loss_box`` (GIoU) and ``loss_quality``.

        All are divided by the number of positive points in the step; the last two are of positive points. To watch:
        ``positives``, the positive points per image.
        """
        levels = self(features, images)
        points = torch.cat([level.points for level in levels])
        logits, distances, quality = (
            torch.cat(column, dim=1)
            for column in zip(*((level.logits, level.distances, level.quality) for level in levels), strict=True)
        )
        truth = self._assign(levels, targets)
        positive = truth.positive
        classes = torch.zeros_like(logits).scatter(2, truth.labels[:, :, None], positive[:, :, None].to(logits.dtype))
        focal = sigmoid_focal_loss(logits, classes, self.config.focal_alpha, self.config.focal_gamma).sum(dim=2)
        boxes = decode_distances(distances, points)
        expected = self._expected_quality(points, boxes.detach(), truth)
        entropy = F.binary_cross_entropy_with_logits(quality[:, :, 0], expected, reduction="none")
        count = all_reduce_mean(positive.sum().float()).clamp(min=1)
        return {
            "loss_class": (focal * truth.known).sum() / count,
            "loss_box": ((1 - paired_giou(boxes, truth.boxes)) * positive).sum() / count,
            "loss_quality": (entropy * positive).sum() / count,
            "positives": positive.sum(dim=1),
        }

    @torch.no_grad()
    def _assign(self, levels: Sequence[FCOSLevel], targets: PaddedTargets) -> PointTargets:
        """Assign the objects of each image to points."""
        config, counts = self.config, [len(level.points) for level in levels]
        points = torch.cat([level.points for level in levels])
        strides = self.levels.strides_of_points([level.points for level in levels])
        if config.assign == "statistics":
            squares = squares_around(points, ANCHOR_STRIDES * strides)
            match = match_by_statistics(squares, targets.boxes, targets.valid, counts)
        else:
            limits = points.new_tensor(SIZE_RANGE) * strides[:, None]
            limits[: counts[0], 0], limits[-counts[-1] :, 1] = 0, torch.inf
            match = match_points(points, targets.boxes, targets.valid, strides, limits, config.center_radius)
        return point_targets(match, points, strides, targets, config.ignore_coverage)

    def _expected_quality(
        self, points: Float[Tensor, "n 2"], boxes: Float[Tensor, "b n 4"], truth: PointTargets
    ) -> Float[Tensor, "b n"]:
        """Return the centerness of each positive point in its object's box, or the IoU of the predicted box with it."""
        if self.config.quality == "iou":
            return paired_iou(boxes, truth.boxes)
        distances = torch.where(truth.positive[:, :, None], encode_distances(truth.boxes, points), 1)
        pairs = distances.unflatten(-1, (2, 2))  # (left, top), (right, bottom)
        return (pairs.amin(dim=-2) / pairs.amax(dim=-2)).prod(dim=-1).sqrt()

    def detect(self, features: Features, images: Images) -> PaddedDetections:
        """Return a fixed number of detections per image: the form for export, whose shapes follow from the config."""
        levels = self(features, images)
        factors = [level.quality.sigmoid() for level in levels] if self.config.quality_in == "score" else None
        return select_on_levels(levels, images.sizes, self.config.selection, factors)
