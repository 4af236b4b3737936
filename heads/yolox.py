"""YOLOX: an anchor-free one-stage detector with objectness scores and SimOTA assignment (2107.08430)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    ActivationKind,
    NormKind,
    PaddedDetections,
    PaddedTargets,
    all_reduce_mean,
    conv_block,
    decode_centers,
    encode_centers,
    encode_distances,
    flatten_cells,
    gather_rows,
    grid_points,
    match_by_cost,
    near_centers,
    norm_layer,
    paired_giou,
    paired_iou,
    pairwise_iou,
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
    initialize_prior,
    point_targets,
    select_on_levels,
)

OUTSIDE_COST = 1e6
"""Cost added for a point outside an object's positive region, so that it is matched only if no other point is left."""
MAX_CROSS_ENTROPY = 100.0
"""Upper bound of each cross-entropy term in the cost, as in torch's ``binary_cross_entropy``."""


class YOLOXConfig(HeadConfig):
    """The options of a YOLOX head. The defaults are those of YOLOX 0.3; notes give the values of other releases."""

    name: Literal["yolox"] = "yolox"
    levels: tuple[str, ...] | None = None
    """The levels to read. None: all ``p`` levels."""
    channels: PositiveInt | None = None
    """Channels of the convolutions, after a 1x1 convolution that projects the level. None: those of the pyramid."""
    convolutions: int = Field(default=2, ge=0)
    """Number of 3x3 convolutions before the class logits, and before the box and the objectness."""
    norm: NormKind = "batch"
    """The norm after each of these convolutions."""
    activation: ActivationKind = "silu"
    """The activation after each norm."""
    positive_region: Literal["center", "center_and_box"] = "center"
    """The points that can be positive for an object. ``center``: those near the center of its box. ``center_and_box``:
    those near the center and inside the box; points that satisfy only one of the two conditions are used if no others
    are left (YOLOX before 0.3, mmdetection)."""
    center_radius: float = Field(default=1.5, gt=0)
    """A point is near a center if it is less than this many strides away along both axes. YOLOX before 0.3 and
    mmdetection use 2.5."""
    iou_candidates: PositiveInt = 10
    """Dynamic k of SimOTA: the number of positive points of an object is the sum of its highest IoUs with predicted
    boxes, of which this many are added."""
    iou_cost: NonNegative = 3.0
    """Weight of the IoU cost, ``-log(IoU)``, in the matching cost; the weight of the classification cost is 1."""
    ignore_coverage: UnitInterval = 0.5
    """A negative point is ignored if at least this fraction of its cell is inside an ignore region."""
    box_loss: Literal["iou", "giou"] = "iou"
    """``iou``: 1 - IoU squared; ``giou``: generalized IoU (1902.09630)."""
    box_weight: NonNegative = 5.0
    """Weight of the box loss."""
    l1_from: UnitInterval = 0.95
    """The fraction of the training steps after which the L1 loss of the encoded boxes is added. The default adds it in
    the last 15 of 300 epochs. 0: always; 1: never."""
    selection: DenseSelectionConfig = DenseSelectionConfig(
        score_threshold=0.01, nms_threshold=0.65, best_class_only=True
    )
    """How detections are selected. A score is the product of class probability and objectness. YOLOX and mmdetection
    pass all candidates above the threshold to NMS, not only the best of each level."""


class YOLOXLevel(NamedTuple):
    """The outputs for every point of one level."""

    corners: Float[Tensor, "n 2"]
    """The top left corner of the point's cell, in pixels; the point itself is the center of the cell."""
    strides: Float[Tensor, "n 1"]
    logits: Float[Tensor, "b n c"]
    objectness: Float[Tensor, "b n 1"]
    """The logit of the probability that an object is assigned to the point."""
    offsets: Float[Tensor, "b n 4"]
    """The encoded box, see :func:`vertebra.ops.encode_centers`."""

    def scores(self) -> Float[Tensor, "b n c"]:
        """Return the product of the probability of each class and the objectness."""
        return self.logits.sigmoid() * self.objectness.sigmoid()

    def boxes(self, indices: Int64[Tensor, "b k"]) -> Float[Tensor, "b k 4"]:
        """Return the boxes of the points with these indices."""
        return decode_centers(gather_rows(self.offsets, indices), self.corners[indices], self.strides[indices])


class YOLOXLayers(nn.Module):
    """The layers of one level: a 1x1 convolution, two towers of 3x3 convolutions, and three outputs."""

    def __init__(self, in_channels: int, num_classes: int, config: YOLOXConfig) -> None:
        super().__init__()
        channels = config.channels or in_channels
        self.stem = conv_block(in_channels, channels, 1, norm_layer(config.norm), config.activation)
        self.class_tower = dense_tower(channels, config.convolutions, config.norm, activation=config.activation)
        self.box_tower = dense_tower(channels, config.convolutions, config.norm, activation=config.activation)
        self.class_logits = nn.Conv2d(channels, num_classes, 1)
        self.objectness = nn.Conv2d(channels, 1, 1)
        self.box_offsets = nn.Conv2d(channels, 4, 1)
        self.class_rows = {"class_logits": ClassRows()}
        for layer in (self.class_logits, self.objectness):
            initialize_prior(layer)

    def forward(
        self, features: Float[Tensor, "b _ h w"]
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n 1"], Float[Tensor, "b n 4"]]:
        """Compute the class logits, the objectness and the encoded box of every point."""
        features = self.stem(features)
        logits = self.class_logits(self.class_tower(features))
        hidden = self.box_tower(features)
        maps = (logits, self.objectness(hidden), self.box_offsets(hidden))
        flat = [flatten_cells(outputs, outputs.shape[1]).float() for outputs in maps]
        return flat[0], flat[1], flat[2]


@HEADS.register("yolox", YOLOXConfig)
class YOLOXHead(DenseHead):
    """YOLOX: a one-stage detector without anchors, whose levels have separate layers."""

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: YOLOXConfig = YOLOXConfig()
    ) -> None:
        super().__init__()
        require_classes("YOLOX", num_classes)
        self.config, self.num_classes = config, num_classes
        self.levels = PyramidLevels.choose("YOLOX", feature_info, config.levels)
        self.layers = nn.ModuleDict(
            {name: YOLOXLayers(self.levels.channels, num_classes, config) for name in self.levels.names}
        )

    def forward(self, features: Features, images: Images) -> list[YOLOXLevel]:
        """Compute the outputs of every point of each level."""
        maps = self.levels.read(features)
        outputs = []
        for grid, stride, level, layers in zip(
            grids_of(maps), self.levels.strides, maps, self.layers.values(), strict=True
        ):
            corners = grid_points(grid, (stride, stride), level.device, offset=0.0)
            strides = corners.new_full((len(corners), 1), stride)
            outputs.append(YOLOXLevel(corners, strides, *layers(level)))
        return outputs

    def padded_loss(self, features: Features, images: Images, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute the losses, all divided by the number of positive points in the batch.

        ``loss_objectness`` is summed over all points that are not ignored. The others are summed over the positive
        points: ``loss_class``, whose target for the assigned class is the IoU of the predicted box, ``loss_box``, and
        ``loss_l1``, which is 0 until ``l1_from``. The metric ``positives`` is the number of positive points per
        image.
        """
        levels = self(features, images)
        corners, strides, logits, objectness, offsets = (
            torch.cat(column, dim=-2) for column in zip(*levels, strict=True)
        )
        output = YOLOXLevel(corners, strides, logits, objectness, offsets)
        boxes = decode_centers(offsets, corners, strides)
        truth = self._assign(output, boxes, targets)
        positive = truth.positive
        count = all_reduce_mean(positive.sum().float()).clamp(min=1)
        iou = paired_iou(boxes, truth.boxes)
        classes = torch.zeros_like(logits).scatter(2, truth.labels[:, :, None], iou.detach()[:, :, None])
        class_errors = F.binary_cross_entropy_with_logits(logits, classes, reduction="none").sum(dim=2)
        object_errors = F.binary_cross_entropy_with_logits(objectness[:, :, 0], positive.float(), reduction="none")
        box_errors = 1 - iou.square() if self.config.box_loss == "iou" else 1 - paired_giou(boxes, truth.boxes)
        l1_errors = (offsets - encode_centers(truth.boxes, corners, strides)).abs().sum(dim=2)
        return {
            "loss_class": (class_errors * positive).sum() / count,
            "loss_objectness": (object_errors * truth.known).sum() / count,
            "loss_box": self.config.box_weight * (box_errors * positive).sum() / count,
            "loss_l1": (l1_errors * positive).sum() / count * (self.progress >= self.config.l1_from),
            "positives": positive.sum(dim=1),
        }

    @torch.no_grad()
    def _assign(self, output: YOLOXLevel, boxes: Float[Tensor, "b n 4"], targets: PaddedTargets) -> PointTargets:
        """Assign the objects of each image to the points of all levels, which predict ``boxes``."""
        config, strides = self.config, output.strides[:, 0]
        points = output.corners + output.strides / 2
        valid = targets.valid[:, None]
        near = inside = near_centers(points, targets.boxes, config.center_radius * strides) & valid
        if config.positive_region == "center_and_box":
            inside = encode_distances(targets.boxes[:, None], points[:, None]).amin(dim=3) > 0
            inside &= valid
        iou = pairwise_iou(boxes, targets.boxes)
        costs = _class_costs(output.logits, output.objectness, targets.labels)
        costs = costs - config.iou_cost * (iou + 1e-8).log() + OUTSIDE_COST * ~(near & inside)
        candidates = (near | inside).any(dim=2, keepdim=True) & valid
        match = match_by_cost(costs.masked_fill(~candidates, torch.inf), iou, config.iou_candidates)
        return point_targets(match, points, strides, targets, config.ignore_coverage)

    def detect(self, features: Features, images: Images) -> PaddedDetections:
        """Return padded detections, whose shapes depend on the config only; use this method for export."""
        return select_on_levels(self(features, images), images.sizes, self.config.selection)


def _class_costs(
    logits: Float[Tensor, "b n c"], objectness: Float[Tensor, "b n 1"], labels: Int64[Tensor, "b m"]
) -> Float[Tensor, "b n m"]:
    """Return the classification cost of matching each point to each object, whose classes are ``labels``.

    It is the binary cross-entropy of the point's scores, summed over the classes. A score is the geometric mean of
    class probability and objectness.
    """
    scores = (logits.sigmoid() * objectness.sigmoid()).sqrt()
    if_true = -scores.log().clamp(min=-MAX_CROSS_ENTROPY)
    if_false = -(1 - scores).log().clamp(min=-MAX_CROSS_ENTROPY)
    # The target is 0 for every class except the label, so no tensor of shape (points, objects, classes) is needed.
    columns = labels[:, None].expand(-1, logits.shape[1], -1)
    return if_false.sum(dim=2, keepdim=True) + (if_true - if_false).gather(2, columns)
