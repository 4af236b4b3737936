"""The mask branch of Mask R-CNN: RoIAlign, convolutions, a mask per class on a grid (1703.06870 section 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..ops import NormKind, RoIAlignConfig, all_reduce_mean, rasterize_polygon_masks
from ..structures import (
    Detections,
    FeatureInfo,
    Features,
    Instances,
    MaskFormat,
    PasteRule,
    PolygonMasks,
    RoIMasks,
)
from .class_rows import ClassRows
from .regions import (
    RegionBranch,
    RegionBranchConfig,
    RegionPooler,
    RegionSamples,
    initialize_convolutions,
    region_convolutions,
)


class MaskBranchConfig(RegionBranchConfig):
    """Defaults are detectron2's for ResNet-FPN; where torchvision differs, the field says so."""

    levels: tuple[str, ...] | None = None
    """Levels to read; None takes ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig(size=14)
    """The masks have twice this size."""
    convolutions: tuple[PositiveInt, ...] = (256, 256, 256, 256)
    """Channels of the 3x3 convolutions, and of the deconvolution after them (its last)."""
    norm: NormKind = "none"
    """The norm that follows each of the convolutions."""
    class_agnostic: bool = False
    """One mask per region for all classes, instead of one for each class."""
    truth: Literal["sharp", "soft", "polygons"] = "sharp"
    """How a mask of the ground truth becomes a target. ``sharp``: RoIAlign on its bitmap, aligned and cut at 0.5
    (detectron2 with bitmaps). ``soft``: neither of both (torchvision). ``polygons``: whether the centre of each cell is
    inside its polygons, which no resize has made coarse (detectron2's default); the data set needs
    ``mask_format="polygons"``."""
    fixed_rows: bool = False
    """Compute as many masks of each image as it could have samples with an object, so that all shapes follow from the
    config, as compilation wants. Otherwise as many as the image with most of them has, which reads one number back from
    the device and is what the field does."""
    paste: PasteRule = "centers"
    """How a grid becomes a mask over the image; torchvision: ``padded``."""

    @property
    def mask_format(self) -> MaskFormat:
        """Return the format that the masks of the ground truth must have."""
        return "polygons" if self.truth == "polygons" else "bitmaps"

    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "MaskBranch":
        """Build the branch on a pyramid."""
        return MaskBranch(feature_info, num_classes, self)


class MaskBranch(RegionBranch):
    """Regions -> a mask each."""

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: int,
        config: MaskBranchConfig = MaskBranchConfig(),
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.pool = RegionPooler("mask branch", feature_info, config.levels, config.pool)
        self.convolutions = region_convolutions(self.pool.channels, config.convolutions, config.norm)
        width = [self.pool.channels, *config.convolutions][-1]
        self.deconvolution = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.logits = nn.Conv2d(width, 1 if config.class_agnostic else num_classes, 1)
        self.class_rows = {} if config.class_agnostic else {"logits": ClassRows()}
        initialize_convolutions(self.deconvolution)
        nn.init.normal_(self.logits.weight, std=0.001)
        nn.init.zeros_(self.logits.get_parameter("bias"))

    def forward(
        self, features: Features, boxes: Float[Tensor, "b r 4"], labels: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r s s"]:
        """Compute the mask logits of each region for its label."""
        hidden = self.convolutions(self.pool(features, boxes))
        logits = self.logits(F.relu(self.deconvolution(hidden))).float()
        # The background has no mask; a class-agnostic one serves all labels.
        channels = labels.flatten().clamp(max=logits.shape[1] - 1)
        channels = channels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, channels)[:, 0].unflatten(0, boxes.shape[:2])

    def loss(self, features: Features, samples: RegionSamples, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Return ``loss_mask``: the mean binary cross-entropy over the cells of regions with an object; 0 without one.

        An object whose mask is empty teaches nothing.
        """
        samples = self._repeat_positives(samples)
        logits = self(features, samples.boxes, samples.labels)
        with torch.no_grad():
            rows = [
                self._mask_targets(*image) for image in zip(samples.boxes, samples.target_indices, targets, strict=True)
            ]
            mask_targets, has_mask = (torch.stack(column) for column in zip(*rows, strict=True))
        counted = samples.valid & has_mask
        errors = F.binary_cross_entropy_with_logits(logits, mask_targets, reduction="none")
        errors = errors * counted[:, :, None, None]
        cells = all_reduce_mean(counted.sum() * float(logits.shape[-1] ** 2))
        return {"loss_mask": errors.sum() / cells.clamp(min=1)}

    def predict(
        self, features: Features, boxes: Float[Tensor, "b r 4"], labels: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r s s"]:
        """Return the probabilities of each region's mask on a grid over its box."""
        return self(features, boxes, labels).sigmoid()

    def attach(self, detections: Detections, values: Float[Tensor, "n s s"], size: tuple[int, int]) -> Detections:
        """Return the detections of an image of (height, width) ``size`` with their masks."""
        return replace(detections, masks=RoIMasks(values, size, self.config.paste))

    def _repeat_positives(self, samples: RegionSamples) -> RegionSamples:
        """Return the samples with the positives of an image, which come first, repeated in place of the others.

        So all images have equally many rows, and a batch norm sees regions with objects only, each of them about as
        often. ``valid`` is False for repeated rows, which do not count for the loss.
        """
        positive = samples.valid & (samples.labels < self.num_classes)
        count = positive.sum(dim=1, keepdim=True).clamp(min=1)
        if not self.config.fixed_rows:
            most = int(count.max())
            samples, positive = samples.first(most), positive[:, :most]
        rows = torch.arange(positive.shape[1], device=positive.device) % count
        boxes = samples.boxes.gather(1, rows[..., None].expand_as(samples.boxes))
        return samples._replace(boxes=boxes, valid=positive, labels=samples.labels.gather(1, rows))

    def _mask_targets(
        self, boxes: Float[Tensor, "r 4"], target_indices: Int64[Tensor, " r"], target: Instances
    ) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
        """Return the target of each region on its grid, and whether its object has a mask that is not empty."""
        rule = self.config.truth
        masks = target.polygon_masks if rule == "polygons" else target.masks
        if masks is None:
            field = "polygon_masks" if rule == "polygons" else "masks"
            raise ValueError(f"a mask branch with truth={rule!r} learns from Instances with {field}; these have none")
        size = 2 * self.config.pool.size
        if not len(target):
            return boxes.new_zeros(len(boxes), size, size), torch.zeros_like(target_indices, dtype=torch.bool)
        if isinstance(masks, PolygonMasks):
            return _polygon_targets(masks, target.boxes, boxes, target_indices, size)
        rois = torch.cat([target_indices[:, None].to(boxes.dtype), boxes], dim=1)
        crops = roi_align(masks[:, None].to(boxes.dtype), rois, size, sampling_ratio=-1, aligned=rule == "sharp")[:, 0]
        if rule == "sharp":
            crops = (crops >= 0.5).to(boxes.dtype)
        return crops, masks.flatten(1).any(dim=1)[target_indices]


def _polygon_targets(
    masks: PolygonMasks,
    object_boxes: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "r 4"],
    target_indices: Int64[Tensor, " r"],
    size: int,
) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
    """Rasterize the polygons over each region, and over the objects' own boxes to see which have a mask at all."""
    object_indices = torch.arange(len(object_boxes), device=target_indices.device)
    grids = rasterize_polygon_masks(
        masks, torch.cat([target_indices, object_indices]), torch.cat([boxes, object_boxes]), (size, size)
    )
    crops, objects = grids[: len(boxes)], grids[len(boxes) :]
    return crops.to(boxes.dtype), objects.flatten(1).any(dim=1)[target_indices]
