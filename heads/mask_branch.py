"""The mask branch of Mask R-CNN: RoIAlign, convolutions, a mask per class on a grid (1703.06870 section 3)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..ops import NormKind, RoIAlignConfig, all_reduce_mean, rasterize_polygon_masks
from ..structures import Config, FeatureInfo, Features, Instances, MaskFormat, PasteRule, PolygonMasks
from .box_branch import RegionSamples
from .class_rows import ClassRows
from .region_pooler import RegionPooler, initialize_convolutions, region_convolutions


class MaskBranchConfig(Config):
    """Defaults are detectron2's for ResNet-FPN; where torchvision differs, the field says so."""

    levels: tuple[str, ...] | None = None
    """Levels to read; None takes ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig(size=14)
    """The masks have twice this size."""
    convolutions: tuple[PositiveInt, ...] = (256, 256, 256, 256)
    """Channels of the 3x3 convolutions, and of the deconvolution after them (its last)."""
    norm: NormKind = "none"
    class_agnostic: bool = False
    """One mask per region for all classes, instead of one for each."""
    truth: Literal["sharp", "soft", "polygons"] = "sharp"
    """How a true mask becomes a target. ``sharp``: RoIAlign on its bitmap, aligned and cut at 0.5 (detectron2 with
    bitmaps). ``soft``: neither of both (torchvision). ``polygons``: whether the middle of each cell is inside its
    outline, which no resize has made coarse (detectron2's default); the data set needs ``mask_format="polygons"``."""
    fixed_rows: bool = False
    """Compute as many masks of each image as it could have samples with an object, so that all shapes follow from the
    config, as compilation wants. Otherwise as many as the image with most of them has, which reads one number back from
    the device and is what the field does."""
    paste: PasteRule = "centers"
    """How a grid becomes a mask over the image; torchvision: ``padded``."""

    @property
    def mask_format(self) -> MaskFormat:
        """What true masks must come as."""
        return "polygons" if self.truth == "polygons" else "bitmaps"


class MaskBranch(nn.Module):
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
        """The logits of each region's mask, for its own label."""
        hidden = self.convolutions(self.pool(features, boxes))
        logits = self.logits(F.relu(self.deconvolution(hidden))).float()
        own = labels.flatten().clamp(max=logits.shape[1] - 1)  # the background has no mask; an agnostic one is for all
        own = own[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, own)[:, 0].unflatten(0, boxes.shape[:2])

    def loss(self, features: Features, samples: RegionSamples, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """``loss_mask``: binary cross-entropy, the mean over the cells of all regions with an object; 0 without one.

        An object whose mask is empty teaches nothing. Samples with an object come first; with ``fixed_rows`` leave out
        those that cannot have one, as each costs a mask.
        """
        samples = self._repeat_positives(samples)
        logits = self(features, samples.boxes, samples.labels)
        with torch.no_grad():
            rows = [self._truth(*image) for image in zip(samples.boxes, samples.objects, targets, strict=True)]
            truth, known = (torch.stack(column) for column in zip(*rows, strict=True))
        counted = samples.valid & known
        errors = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * counted[:, :, None, None]
        cells = all_reduce_mean(counted.sum() * float(logits.shape[-1] ** 2))
        return {"loss_mask": errors.sum() / cells.clamp(min=1)}

    def _repeat_positives(self, samples: RegionSamples) -> RegionSamples:
        """The samples, with the positives of an image, which come first, over again in place of the others.

        So all images have equally many rows, and a batch norm sees regions with objects only, each of them about as
        often. Repeated rows do not count for the loss.
        """
        positive = samples.valid & (samples.labels < self.num_classes)
        count = positive.sum(dim=1, keepdim=True).clamp(min=1)
        if not self.config.fixed_rows:
            most = int(count.max())
            samples, positive = RegionSamples(*(part[:, :most] for part in samples)), positive[:, :most]
        places = torch.arange(positive.shape[1], device=positive.device) % count
        boxes = samples.boxes.gather(1, places[..., None].expand_as(samples.boxes))
        return samples._replace(boxes=boxes, valid=positive, labels=samples.labels.gather(1, places))

    def _truth(
        self, boxes: Float[Tensor, "r 4"], objects: Int64[Tensor, " r"], target: Instances
    ) -> tuple[Float[Tensor, "r s s"], Bool[Tensor, " r"]]:
        """What each region's mask should be, and whether that is known."""
        size, rule = 2 * self.config.pool.size, self.config.truth
        form, kind = (target.polygon_masks, "polygon_masks") if rule == "polygons" else (target.masks, "masks")
        if form is None:
            raise ValueError(f"a mask branch with truth={rule!r} learns from Instances with {kind}; these have none")
        if not len(target):
            return boxes.new_zeros(len(boxes), size, size), torch.zeros_like(objects, dtype=torch.bool)
        if isinstance(form, PolygonMasks):
            rows = torch.arange(len(target), device=objects.device)
            cut = rasterize_polygon_masks(
                form, torch.cat([objects, rows]), torch.cat([boxes, target.boxes]), (size, size)
            )
            cut, whole = cut[: len(boxes)], cut[len(boxes) :]
            return cut.to(boxes.dtype), whole.flatten(1).any(dim=1)[objects]
        rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)
        cut = roi_align(form[:, None].to(boxes.dtype), rois, size, sampling_ratio=-1, aligned=rule == "sharp")[:, 0]
        return (cut >= 0.5).to(boxes.dtype) if rule == "sharp" else cut, form.flatten(1).any(dim=1)[objects]
