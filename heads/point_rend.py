"""The mask branch of PointRend: a coarse mask, refined at uncertain points by a point head (1912.08193)."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..ops import (
    PaddedDetections,
    PaddedTargets,
    all_reduce_mean,
    cell_centers,
    choose_points,
    draw_image_seeds,
    points_in_boxes,
    random_points,
    sample_bitmaps,
    sample_points,
    sample_points_of_regions,
    subdivide,
)
from ..structures import Detections, FeatureInfo, Features, MaskFormat, PasteRule, RoIMasks
from .base import require_levels
from .class_rows import ClassRows
from .mask_branch import crop_bitmaps
from .point_head import PointHead, PointHeadConfig
from .regions import (
    RegionBranch,
    RegionBranchConfig,
    RegionRows,
    RegionSamples,
    initialize_convolutions,
    positive_regions,
    values_of_labels,
)


class PointRendBranchConfig(RegionBranchConfig):
    """The options of PointRend's mask branch. The defaults are those of detectron2 and of mmdetection."""

    levels: tuple[str, ...] = Field(default=("p2",), min_length=1)
    """The levels whose features are sampled at each point and concatenated."""
    grid: int = Field(default=14, ge=2, multiple_of=2)
    """Height and width of the grid over a region on which features are sampled to compute the coarse mask."""
    channels: PositiveInt = 256
    """Channels of the 2x2 convolution of stride 2 on this grid."""
    fc: tuple[PositiveInt, ...] = (1024, 1024)
    """Widths of the fully connected layers after the convolution."""
    coarse_size: PositiveInt = 7
    """Height and width of the coarse mask."""
    point_head: PointHeadConfig = PointHeadConfig()
    """The point head and its points; five subdivisions of a coarse 7x7 mask give a mask of 224x224."""
    paste: PasteRule = "centers"
    """How predicted masks are pasted into the image; see ``MaskBranchConfig.paste``."""

    @property
    def mask_format(self) -> MaskFormat:
        """The format in which the ground truth must have masks."""
        return "bitmaps"

    @property
    def first_grid(self) -> tuple[int, int]:
        """The size of the first grid, which the point head predicts in full, and the number of subdivisions after it.

        Subdivisions that would recompute every cell are skipped by starting from a larger grid.
        """
        size, subdivisions = self.coarse_size, self.point_head.subdivisions
        while subdivisions > 0 and 4 * size**2 <= self.point_head.subdivision_points:
            size, subdivisions = 2 * size, subdivisions - 1
        return size, subdivisions

    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "PointRendBranch":
        """Build the branch for a pyramid with these levels."""
        return PointRendBranch(feature_info, num_classes, self)


class PointRendBranch(RegionBranch):
    """The mask branch of PointRend: predicts a high-resolution mask for each region."""

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: int,
        config: PointRendBranchConfig = PointRendBranchConfig(),
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        require_levels("the PointRend branch", feature_info, config.levels)
        if len(set(config.levels)) < len(config.levels):
            raise ValueError(f"the PointRend branch reads each level once; got {config.levels}")
        self.strides = {level: feature_info[level].stride for level in config.levels}
        channels = sum(feature_info[level].channels for level in config.levels)
        self.convolution = nn.Conv2d(channels, config.channels, 2, stride=2)
        widths = [config.channels * (config.grid // 2) ** 2, *config.fc]
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        self.fc = nn.ModuleList(layers)
        self.coarse_logits = nn.Linear(widths[-1], num_classes * config.coarse_size**2)
        self.point_head = PointHead(channels, num_classes, config.point_head)
        self.class_rows = {"coarse_logits": ClassRows(per_class=config.coarse_size**2)}
        initialize_convolutions(self.convolution)
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.coarse_logits.weight, std=0.001)
        for layer in (*layers, self.coarse_logits):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, boxes: Float[Tensor, "b r 4"]) -> Float[Tensor, "b r k s s"]:
        """Return the logits of the coarse mask of each class over each region."""
        grid, size = self.config.grid, self.config.coarse_size
        points = _grid_points(grid, boxes)
        hidden = self._sample(features, boxes, points).flatten(0, 1).unflatten(2, (grid, grid))
        hidden = F.relu(self.convolution(hidden)).flatten(1)
        for layer in self.fc:
            hidden = F.relu(layer(hidden))
        return self.coarse_logits(hidden).float().view(*boxes.shape[:2], self.num_classes, size, size)

    def point_logits(
        self,
        features: Features,
        boxes: Float[Tensor, "b r 4"],
        coarse: Float[Tensor, "b r k s s"],
        points: Float[Tensor, "b r p 2"],
    ) -> Float[Tensor, "b r k p"]:
        """Return the logits of each class at points, given relative to their region (0 to 1 along x and y)."""
        fine = self._sample(features, boxes, points).flatten(0, 1)
        sampled = sample_points(coarse.flatten(0, 1), points.flatten(0, 1))
        return self.point_head(fine, sampled).unflatten(0, boxes.shape[:2])

    def _sample(
        self, features: Features, boxes: Float[Tensor, "b r 4"], points: Float[Tensor, "b r p 2"]
    ) -> Float[Tensor, "b r c p"]:
        """Sample all levels at the points of each region, and concatenate the features."""
        sampled = [
            sample_points_of_regions(features[level], stride, boxes, points) for level, stride in self.strides.items()
        ]
        return torch.cat(sampled, dim=2)

    def loss(self, features: Features, samples: RegionSamples, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute the losses of positive samples, which are means of the binary cross-entropy.

        ``loss_mask`` is the mean over the cells of the coarse masks, and ``loss_mask_points`` over the training points.
        Samples whose object has an empty mask are ignored. Without positive samples both are 0.
        """
        samples = positive_regions(samples, self.num_classes)
        coarse = self(features, samples.boxes)
        mask_logits = values_of_labels(coarse, samples.labels)
        points = self._training_points(mask_logits)
        with torch.no_grad():
            mask_targets, point_targets, has_mask = self._mask_targets(samples, points, targets)
        point_logits = values_of_labels(self.point_logits(features, samples.boxes, coarse, points), samples.labels)
        counted = samples.valid & has_mask
        return {
            "loss_mask": _mean_error(mask_logits.flatten(2), mask_targets.flatten(2), counted),
            "loss_mask_points": _mean_error(point_logits, point_targets, counted),
        }

    @torch.no_grad()
    def _training_points(self, mask_logits: Float[Tensor, "b r s s"]) -> Float[Tensor, "b r p 2"]:
        """Return the training points of each region, relative to it, chosen by the uncertainty of the coarse masks."""
        config, (count, regions) = self.config.point_head, mask_logits.shape[:2]
        drawn = random_points(draw_image_seeds(count, mask_logits.device), regions, config.num_drawn).flatten(0, 1)
        logits = mask_logits.flatten(0, 1)[:, None]
        points = choose_points(logits, drawn, config.num_uncertain, config.num_uniform)
        return points.unflatten(0, (count, regions))

    def _mask_targets(
        self, samples: RegionSamples, points: Float[Tensor, "b r p 2"], targets: PaddedTargets
    ) -> tuple[Float[Tensor, "b r s s"], Float[Tensor, "b r p"], Bool[Tensor, "b r"]]:
        """Return (target of the coarse mask, targets at the points, whether the object's mask is not empty) by region.

        The target at a point is the bitmap of the mask, interpolated bilinearly.
        """
        if targets.masks is None:
            raise ValueError("a PointRend branch needs targets with masks; these have none")
        objects = targets.rows.gather(1, samples.target_indices)
        rows = RegionRows(samples.valid)
        crops, has_mask = crop_bitmaps(
            targets.masks, rows.take(samples.boxes), rows.take(objects), self.config.coarse_size, sharp=True
        )
        sizes = targets.sizes[:, None].expand(*objects.shape, 2)
        at_points = sample_bitmaps(targets.masks, objects, sizes, points_in_boxes(points, samples.boxes))
        return rows.pad(crops), at_points, rows.pad(has_mask)

    def predict(self, features: Features, detections: PaddedDetections) -> Float[Tensor, "b r s s"]:
        """Return the mask probabilities of each detection on a grid over its box, computed by adaptive subdivision."""
        boxes, labels = detections.boxes, detections.labels
        coarse = self(features, boxes)

        def predict_points(points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n 1 p"]:
            logits = self.point_logits(features, boxes, coarse, points.unflatten(0, boxes.shape[:2]))
            return values_of_labels(logits, labels).flatten(0, 1)[:, None]

        size, subdivisions = self.config.first_grid
        logits = predict_points(_grid_points(size, boxes).flatten(0, 1)).unflatten(2, (size, size))
        for _ in range(subdivisions):
            logits = subdivide(logits, self.config.point_head.subdivision_points, predict_points)
        return logits[:, 0].sigmoid().unflatten(0, boxes.shape[:2])

    def attach(self, detections: Detections, values: Float[Tensor, "n s s"], size: tuple[int, int]) -> Detections:
        """Return the detections of an image of ``size`` (height, width) with their predicted masks."""
        return replace(detections, masks=RoIMasks(values, size, self.config.paste))


def _grid_points(size: int, boxes: Float[Tensor, "b r 4"]) -> Float[Tensor, "b r p 2"]:
    """Return the centers of the cells of a square grid over each box, relative to the box."""
    centers = cell_centers(torch.arange(size**2, device=boxes.device), size, size)
    return centers.expand(*boxes.shape[:2], -1, -1)


def _mean_error(
    logits: Float[Tensor, "b r n"], targets: Float[Tensor, "b r n"], counted: Bool[Tensor, "b r"]
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy over the regions that are counted."""
    errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * counted[:, :, None]
    return errors.sum() / all_reduce_mean(counted.sum() * float(logits.shape[2])).clamp(min=1)
