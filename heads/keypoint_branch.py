"""The keypoint branch of Keypoint R-CNN: RoIAlign, convolutions, and a heatmap per keypoint (1703.06870 section 5)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from ..ops import (
    DecodingRule,
    NormKind,
    PaddedDetections,
    PaddedTargets,
    RoIAlignConfig,
    all_reduce_mean,
    decode_keypoints,
    encode_keypoints,
    gather_rows,
    heatmap_scores,
)
from ..structures import COCO_KEYPOINTS, Detections, FeatureInfo, Features, NonNegative
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
)


class KeypointBranchConfig(RegionBranchConfig):
    """The options of the keypoint branch. The defaults are detectron2's; notes say where torchvision differs."""

    names: tuple[str, ...] = Field(default=COCO_KEYPOINTS, min_length=1)
    """The names of the keypoints to predict, for objects of all classes: those of the data set, in the same order."""
    levels: tuple[str, ...] | None = None
    """The levels to read. None: ``p2..p5``."""
    pool: RoIAlignConfig = RoIAlignConfig(size=14)
    """RoIAlign of the regions; heatmaps have four times its size."""
    convolutions: tuple[PositiveInt, ...] = (512,) * 8
    """Channels of the 3x3 convolutions."""
    norm: NormKind = "none"
    """The norm after each of these convolutions."""
    normalizer: Literal["labeled", "fixed"] = "labeled"
    """The divisor of the summed loss. ``labeled``: the number of labeled keypoints inside their regions
    (torchvision; detectron2's default). ``fixed``: images x maximum number of positive samples per image x keypoints
    (detectron2 with ``NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS=False``)."""
    loss_weight: NonNegative = 1.0
    """Factor of the loss; detectron2 recommends 4 with ``normalizer="fixed"``."""
    decoding: DecodingRule = "bicubic"
    """How a keypoint is located on its heatmap; detectron2 and torchvision use ``bicubic``."""
    score: Literal["probability", "logit"] = "probability"
    """The score of a keypoint: the maximum of its heatmap after the softmax (``probability``, as in detectron2) or
    before it (``logit``, as in torchvision)."""

    @field_validator("names")
    @classmethod
    def _require_distinct_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"keypoints need unique names; got {names}")
        return names

    @property
    def mask_format(self) -> None:
        """None, since the branch needs no masks."""

    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "KeypointBranch":
        """Build the branch for a pyramid with these levels."""
        return KeypointBranch(feature_info, num_classes, self)


class KeypointBranch(RegionBranch):
    """The keypoint branch of an R-CNN: predicts a heatmap of each keypoint for each region, regardless of its class."""

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: int,
        config: KeypointBranchConfig = KeypointBranchConfig(),
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.pool = RegionPooler("keypoint branch", feature_info, config.levels, config.pool)
        self.convolutions = region_convolutions(self.pool.channels, config.convolutions, config.norm)
        width = [self.pool.channels, *config.convolutions][-1]
        self.heatmaps = nn.ConvTranspose2d(width, len(config.names), 4, stride=2, padding=1)
        self.class_rows = {"heatmaps": ClassRows(names=config.names, transposed=True)}
        initialize_convolutions(self.heatmaps)

    def forward(
        self, features: Features, valid: Bool[Tensor, "b r"], boxes: Float[Tensor, "b r 4"]
    ) -> Float[Tensor, "b r k s s"]:
        """Return the logits of each keypoint's heatmap over each region."""
        rows = RegionRows(valid)
        hidden = self.convolutions(self.pool(features, rows.images, rows.take(boxes)))
        heatmaps = self.heatmaps(hidden).float()
        return rows.pad(F.interpolate(heatmaps, scale_factor=2.0, mode="bilinear", align_corners=False))

    def loss(self, features: Features, samples: RegionSamples, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute ``loss_keypoint``: the cross-entropy over the cells of the heatmap of each labeled keypoint.

        Keypoints that are unlabeled or outside their region are ignored. The loss is 0 if none is left.
        """
        capacity = samples.valid.numel() * len(self.config.names)
        samples = positive_regions(samples, self.num_classes)
        heatmaps = self(features, samples.valid, samples.boxes)
        keypoints = gather_rows(self._keypoints(targets), samples.target_indices)
        cells, found = encode_keypoints(keypoints, samples.boxes, heatmaps.shape[-1])
        counted = found & samples.valid[..., None]
        errors = F.cross_entropy(heatmaps.flatten(3).flatten(0, 2), cells.flatten(), reduction="none")
        total = self.config.loss_weight * torch.where(counted.flatten(), errors, 0).sum()
        if self.config.normalizer == "fixed":
            return {"loss_keypoint": total / capacity}
        return {"loss_keypoint": total / all_reduce_mean(counted.sum().float()).clamp(min=1)}

    def predict(self, features: Features, detections: PaddedDetections) -> Float[Tensor, "b r k s s"]:
        """Return the logits of each keypoint's heatmap over each detection."""
        return self(features, detections.valid, detections.boxes)

    def attach(self, detections: Detections, values: Float[Tensor, "n k s s"], size: tuple[int, int]) -> Detections:
        """Return the detections with their keypoints, located on the heatmaps in ``values``."""
        points, maxima = decode_keypoints(values, detections.boxes, self.config.decoding)
        scores = maxima if self.config.score == "logit" else heatmap_scores(values, maxima)
        return replace(detections, keypoints=torch.cat([points, scores[..., None]], dim=2))

    def _keypoints(self, targets: PaddedTargets) -> Float[Tensor, "b m k 3"]:
        """Return the keypoints of the objects; raise ValueError if they have none or another number."""
        keypoints, count = targets.keypoints, len(self.config.names)
        if keypoints is None or keypoints.shape[2] != count:
            given = "none" if keypoints is None else f"{keypoints.shape[2]}"
            raise ValueError(f"a keypoint branch needs targets with {count} keypoints per object; these have {given}")
        return keypoints
