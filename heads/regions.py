"""Regions, region pooling, and the interface of the branches of an R-CNN."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from ..ops import (
    NormKind,
    PaddedDetections,
    PaddedTargets,
    RoIAlignConfig,
    allows_dynamic_shapes,
    conv_block,
    norm_layer,
    pool_regions,
    trim_padding,
)
from ..structures import Config, Detections, FeatureInfo, Features, MaskFormat
from .base import require_equal_channels, require_levels

LEVELS = ("p2", "p3", "p4", "p5")
"""The default levels for region pooling (1612.03144 section 4.2)."""


class Proposals(NamedTuple):
    """Proposed boxes, best first, padded to the same number per image; ``valid`` is False for padding."""

    boxes: Float[Tensor, "b r 4"]
    valid: Bool[Tensor, "b r"]


class RegionSamples(NamedTuple):
    """Proposals sampled for the losses, positives first; rows where ``valid`` is False are padding."""

    boxes: Float[Tensor, "b s 4"]
    valid: Bool[Tensor, "b s"]
    labels: Int64[Tensor, "b s"]
    """The class of the matched object; ``num_classes`` for background."""
    target_boxes: Float[Tensor, "b s 4"]
    """The box of the matched object; for background the sample's own box."""
    target_indices: Int64[Tensor, "b s"]
    """The index of the matched object in the target of its image."""

    @property
    def proposals(self) -> Proposals:
        """The boxes of the samples, without their targets."""
        return Proposals(self.boxes, self.valid)

    def first(self, count: int) -> "RegionSamples":
        """Return the first ``count`` samples of each image."""
        return RegionSamples(
            self.boxes[:, :count],
            self.valid[:, :count],
            self.labels[:, :count],
            self.target_boxes[:, :count],
            self.target_indices[:, :count],
        )


def positive_regions(samples: RegionSamples, num_classes: int) -> RegionSamples:
    """Return samples of which only the positives are valid; the others are replaced by repetitions of positives.

    Where shapes are fixed, the layers also compute the samples that are not valid (:class:`RegionRows`). Thanks to the
    repetitions, batch norms then only see positive regions, each about equally often.
    """
    positive = samples.valid & (samples.labels < num_classes)
    count = positive.sum(dim=1, keepdim=True).clamp(min=1)
    rows = torch.arange(positive.shape[1], device=positive.device) % count
    boxes = samples.boxes.gather(1, rows[..., None].expand_as(samples.boxes))
    positives = samples._replace(boxes=boxes, valid=positive, labels=samples.labels.gather(1, rows))
    return trim_padding(positives, at_least=1)


class RegionRows:
    """The selection of the regions of all images that the layers of a branch compute as one batch.

    Where shapes may be dynamic (:func:`vertebra.ops.allows_dynamic_shapes`), these are the valid regions, otherwise
    all. There is at least one if there are any rows, so that every layer gets a gradient.
    """

    images: Int64[Tensor, " n"]
    """The index of the image of each region."""

    def __init__(self, valid: Bool[Tensor, "b r"]) -> None:
        self.shape = valid.shape
        self.images = torch.arange(self.shape[0], device=valid.device).repeat_interleave(self.shape[1])
        self._rows: Int64[Tensor, " n"] | None = None
        if allows_dynamic_shapes(valid.device):
            rows = valid.flatten().nonzero()[:, 0]
            self._rows = rows if len(rows) else rows.new_zeros(min(1, valid.numel()))
            self.images = self.images[self._rows]

    def take(self, padded: Shaped[Tensor, "b r *d"]) -> Shaped[Tensor, "n *d"]:
        """Return the rows of ``padded`` that belong to the selected regions."""
        rows = padded.flatten(0, 1)
        return rows if self._rows is None else rows[self._rows]

    def pad(self, values: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "b r *d"]:
        """Undo ``take``: put the values at the places of their regions; the other rows are 0."""
        if self._rows is not None:
            padded = values.new_zeros(self.shape.numel(), *values.shape[1:])
            values = padded.index_copy(0, self._rows, values)
        return values.unflatten(0, self.shape)


class RegionPooler:
    """RoIAlign on a pyramid: pools each region to a fixed size from the level that suits its size."""

    def __init__(
        self, reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str] | None, config: RoIAlignConfig
    ) -> None:
        """Check the levels; ValueError if they are missing, have unequal channels, or do not double their stride.

        ``reader`` is the name of the branch in error messages. ``levels=None`` stands for the levels of ``p2..p5`` that
        are in ``feature_info``.
        """
        self.config = config
        self.levels = tuple(levels or [level for level in LEVELS if level in feature_info] or LEVELS)
        require_levels(f"the {reader}", feature_info, self.levels)
        self.strides = [feature_info[level].stride for level in self.levels]
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(self.strides)):
            raise ValueError(f"the {reader} needs levels that each halve the previous; got strides {self.strides}")
        self.channels = require_equal_channels(f"the {reader}", feature_info, self.levels)

    def __call__(
        self, features: Features, images: Int64[Tensor, " n"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n c s s"]:
        """Pool each box from the features of its image, whose index is in ``images``."""
        return pool_regions([features[level] for level in self.levels], self.strides, images, boxes, self.config)


class RegionBranchConfig(Config, ABC):
    """Base class of configs of an R-CNN's branches except the box branch; use it as a field of ``RCNNConfig``."""

    @property
    @abstractmethod
    def mask_format(self) -> MaskFormat | None:
        """The format in which the ground truth must have masks; None if the branch needs no masks."""

    @abstractmethod
    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "RegionBranch":
        """Build the branch for a pyramid with these levels."""


class RegionBranch(nn.Module, ABC):
    """Base class of branches that predict more than box and class of a region: a mask, keypoints, an attribute.

    ``forward`` must have no data-dependent control flow except for :class:`RegionRows`, so that it can be compiled.
    """

    @abstractmethod
    def loss(self, features: Features, samples: RegionSamples, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute losses and metrics as in ``Head.loss``; their names must be unique among the branches.

        ``samples`` holds the first ``max_positives`` samples of each image, which include all positives; ``targets``
        holds the objects of each image. Select the regions for the layers with :class:`RegionRows`.
        """

    @abstractmethod
    def predict(self, features: Features, detections: PaddedDetections) -> Float[Tensor, "b r *d"]:
        """Predict a value for each detection; the values of padding are not used."""

    @abstractmethod
    def attach(self, detections: Detections, values: Float[Tensor, "n *d"], size: tuple[int, int]) -> Detections:
        """Return the detections of an image of ``size`` (height, width) with the ``values`` from ``predict``."""


def values_of_labels(values: Float[Tensor, "b r k *d"], labels: Int64[Tensor, "b r"]) -> Float[Tensor, "b r *d"]:
    """Select the values that belong to the label of each region.

    Background regions get the values of the last class, since background has none. Class-agnostic values (k = 1) are
    returned for every label.
    """
    index = labels.clamp(max=values.shape[2] - 1).view(*labels.shape, *[1] * (values.ndim - 2))
    return values.gather(2, index.expand(-1, -1, 1, *values.shape[3:]))[:, :, 0]


def region_convolutions(channels: int, widths: Sequence[int], norm: NormKind) -> nn.Sequential:
    """Build 3x3 convolutions with ReLU for pooled regions, with He normal initialization by fan-out as detectron2."""
    blocks = nn.Sequential(
        *(conv_block(*pair, 3, norm_layer(norm), "relu") for pair in itertools.pairwise([channels, *widths]))
    )
    initialize_convolutions(blocks)
    return blocks


def initialize_convolutions(part: nn.Module) -> None:
    """Initialize convolutions with He normal initialization by fan-out (1502.01852), and biases with zero."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
