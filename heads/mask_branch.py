"""The mask branch of Mask R-CNN: RoIAlign, convolutions, and a low-resolution mask per class (1703.06870 section 3)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..ops import (
    NormKind,
    PaddedDetections,
    PaddedTargets,
    RoIAlignConfig,
    all_reduce_mean,
    rasterize_polygon_masks,
)
from ..structures import (
    Detections,
    FeatureInfo,
    Features,
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
    RegionRows,
    RegionSamples,
    initialize_convolutions,
    positive_regions,
    region_convolutions,
    values_of_labels,
)


class MaskBranchConfig(RegionBranchConfig):
    """The options of the mask branch; defaults are detectron2's for ResNet-FPN, torchvision's differences are noted."""

    levels: tuple[str, ...] | None = None
    """The levels to read. None: ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig(size=14)
    """RoIAlign of the regions; masks have twice its size."""
    convolutions: tuple[PositiveInt, ...] = (256, 256, 256, 256)
    """Channels of the 3x3 convolutions; the deconvolution after them has as many as the last."""
    norm: NormKind = "none"
    """The norm after each of these convolutions."""
    class_agnostic: bool = False
    """Predict one mask per region for all classes, instead of one for each class."""
    truth: Literal["sharp", "soft", "polygons"] = "sharp"
    """How a ground-truth mask is cropped to a target. ``sharp``: aligned RoIAlign on the bitmap, thresholded at 0.5
    (detectron2 with bitmaps); ``soft``: RoIAlign without alignment and threshold (torchvision); ``polygons``: whether
    the center of each cell is inside the polygons, at full resolution (detectron2's default), which needs a data set
    with ``mask_format="polygons"``."""
    paste: PasteRule = "centers"
    """How predicted masks are pasted into the image; torchvision: ``padded``."""

    @property
    def mask_format(self) -> MaskFormat:
        """The format in which the ground truth must have masks."""
        return "polygons" if self.truth == "polygons" else "bitmaps"

    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "MaskBranch":
        """Build the branch for a pyramid with these levels."""
        return MaskBranch(feature_info, num_classes, self)


class MaskBranch(RegionBranch):
    """The mask branch of an R-CNN: predicts a mask for each region."""

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
        self,
        features: Features,
        valid: Bool[Tensor, "b r"],
        boxes: Float[Tensor, "b r 4"],
        labels: Int64[Tensor, "b r"],
    ) -> Float[Tensor, "b r s s"]:
        """Return the mask logits of each region, from the channel of its label."""
        rows = RegionRows(valid)
        hidden = self.convolutions(self.pool(features, rows.images, rows.take(boxes)))
        logits = self.logits(F.relu(self.deconvolution(hidden))).float()
        return rows.pad(values_of_labels(logits[None], rows.take(labels)[None])[0])

    def loss(self, features: Features, samples: RegionSamples, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute ``loss_mask``: the mean binary cross-entropy over the mask cells of positive samples.

        Samples whose object has an empty mask are ignored. Without positives the loss is 0.
        """
        samples = positive_regions(samples, self.num_classes)
        logits = self(features, samples.valid, samples.boxes, samples.labels)
        with torch.no_grad():
            mask_targets, has_mask = self._mask_targets(samples, targets)
        counted = samples.valid & has_mask
        errors = F.binary_cross_entropy_with_logits(logits, mask_targets, reduction="none")
        errors = errors * counted[:, :, None, None]
        cells = all_reduce_mean(counted.sum() * float(logits.shape[-1] ** 2))
        return {"loss_mask": errors.sum() / cells.clamp(min=1)}

    def predict(self, features: Features, detections: PaddedDetections) -> Float[Tensor, "b r s s"]:
        """Return the mask probabilities of each detection on a grid over its box."""
        return self(features, detections.valid, detections.boxes, detections.labels).sigmoid()

    def attach(self, detections: Detections, values: Float[Tensor, "n s s"], size: tuple[int, int]) -> Detections:
        """Return the detections of an image of ``size`` (height, width) with their predicted masks."""
        return replace(detections, masks=RoIMasks(values, size, self.config.paste))

    def _mask_targets(
        self, samples: RegionSamples, targets: PaddedTargets
    ) -> tuple[Float[Tensor, "b r s s"], Bool[Tensor, "b r"]]:
        """Return (the target mask on the grid of each region, whether the mask of its object is not empty)."""
        rule = self.config.truth
        masks = targets.polygon_masks if rule == "polygons" else targets.masks
        if masks is None:
            field = "polygon_masks" if rule == "polygons" else "masks"
            raise ValueError(f"a mask branch with truth={rule!r} needs targets with {field}; these have none")
        size, rows = 2 * self.config.pool.size, RegionRows(samples.valid)
        boxes, objects = rows.take(samples.boxes), rows.take(targets.rows.gather(1, samples.target_indices))
        if isinstance(masks, PolygonMasks):
            crops, has_mask = _polygon_targets(masks, targets, boxes, objects, size)
        else:
            crops, has_mask = crop_bitmaps(masks, boxes, objects, size, sharp=rule == "sharp")
        return rows.pad(crops), rows.pad(has_mask)


def crop_bitmaps(
    masks: Bool[Tensor, "n h w"],
    boxes: Float[Tensor, "r 4"],
    target_indices: Int64[Tensor, " r"],
    size: int,
    sharp: bool,
) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
    """Crop the mask of each region's object to the region; return (the crops, whether each mask is not empty).

    With ``sharp``, RoIAlign is aligned and its result thresholded at 0.5; otherwise it is neither.
    """
    rois = torch.cat([target_indices[:, None].to(boxes.dtype), boxes], dim=1)
    crops = roi_align(masks[:, None].to(boxes.dtype), rois, size, sampling_ratio=-1, aligned=sharp)[:, 0]
    if sharp:
        crops = (crops >= 0.5).to(boxes.dtype)
    return crops, masks.flatten(1).any(dim=1)[target_indices]


def _polygon_targets(
    masks: PolygonMasks,
    targets: PaddedTargets,
    boxes: Float[Tensor, "r 4"],
    objects: Int64[Tensor, " r"],
    size: int,
) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
    """Rasterize the polygons of ``objects`` over each region, and over the objects' own boxes to find empty masks."""
    own_boxes, own_rows = targets.boxes.flatten(0, 1), targets.rows.flatten()
    grids = rasterize_polygon_masks(masks, torch.cat([objects, own_rows]), torch.cat([boxes, own_boxes]), (size, size))
    crops, own_grids = grids[: len(boxes)], grids[len(boxes) :]
    found = own_grids.flatten(1).any(dim=1) & targets.valid.flatten()
    has_mask = torch.zeros(len(masks), dtype=torch.int32, device=boxes.device).index_add(0, own_rows, found.int())
    return crops.to(boxes.dtype), has_mask[objects] > 0
