"""The mask branch of Mask R-CNN: RoIAlign, convolutions, and a low-resolution mask per class (1703.06870 section 3)."""

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
    repeat_positives,
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
    fixed_rows: bool = False
    """Compute the maximum number of positive masks for every image, so that shapes are fixed for compilation. False:
    compute as many as the image with the most positives has, which copies one number from the device, as other
    implementations do."""
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
        self, features: Features, boxes: Float[Tensor, "b r 4"], labels: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r s s"]:
        """Return the mask logits of each region, from the channel of its label."""
        hidden = self.convolutions(self.pool(features, boxes))
        logits = self.logits(F.relu(self.deconvolution(hidden))).float()
        return values_of_labels(logits.unflatten(0, boxes.shape[:2]), labels)

    def loss(self, features: Features, samples: RegionSamples, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Compute ``loss_mask``: the mean binary cross-entropy over the mask cells of positive samples.

        Samples whose object has an empty mask are ignored. Without positives the loss is 0.
        """
        samples = repeat_positives(samples, self.num_classes, self.config.fixed_rows)
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
        """Return the mask probabilities of each region on a grid over its box."""
        return self(features, boxes, labels).sigmoid()

    def attach(self, detections: Detections, values: Float[Tensor, "n s s"], size: tuple[int, int]) -> Detections:
        """Return the detections of an image of ``size`` (height, width) with their predicted masks."""
        return replace(detections, masks=RoIMasks(values, size, self.config.paste))

    def _mask_targets(
        self, boxes: Float[Tensor, "r 4"], target_indices: Int64[Tensor, " r"], target: Instances
    ) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
        """Return (the target mask on the grid of each region, whether the mask of its object is not empty)."""
        rule = self.config.truth
        masks = target.polygon_masks if rule == "polygons" else target.masks
        if masks is None:
            field = "polygon_masks" if rule == "polygons" else "masks"
            raise ValueError(f"a mask branch with truth={rule!r} needs targets with {field}; these have none")
        size = 2 * self.config.pool.size
        if not len(target):
            return boxes.new_zeros(len(boxes), size, size), torch.zeros_like(target_indices, dtype=torch.bool)
        if isinstance(masks, PolygonMasks):
            return _polygon_targets(masks, target.boxes, boxes, target_indices, size)
        return crop_bitmaps(masks, boxes, target_indices, size, sharp=rule == "sharp")


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
    object_boxes: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "r 4"],
    target_indices: Int64[Tensor, " r"],
    size: int,
) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
    """Rasterize the polygons over each region, and over the boxes of the objects to find empty masks."""
    object_indices = torch.arange(len(object_boxes), device=target_indices.device)
    grids = rasterize_polygon_masks(
        masks, torch.cat([target_indices, object_indices]), torch.cat([boxes, object_boxes]), (size, size)
    )
    crops, objects = grids[: len(boxes)], grids[len(boxes) :]
    return crops.to(boxes.dtype), objects.flatten(1).any(dim=1)[target_indices]
