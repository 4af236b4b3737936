"""What the branches of an R-CNN have in common: regions, their features, and the contract of a branch."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..ops import NormKind, RoIAlignConfig, conv_block, norm_layer, pool_regions
from ..structures import Config, Detections, FeatureInfo, Features, Instances, MaskFormat
from .base import require_equal_channels, require_levels

LEVELS = ("p2", "p3", "p4", "p5")
"""The levels that regions are pooled from by default (1612.03144 section 4.2)."""


class Proposals(NamedTuple):
    """A fixed number of boxes per image, best first; where ``valid`` is False the row is padding."""

    boxes: Float[Tensor, "b r 4"]
    valid: Bool[Tensor, "b r"]


class RegionSamples(NamedTuple):
    """Proposals drawn for the losses, the positives first; where ``valid`` is False the row is padding."""

    boxes: Float[Tensor, "b s 4"]
    valid: Bool[Tensor, "b s"]
    labels: Int64[Tensor, "b s"]
    """The class of the matched object; ``num_classes`` for background."""
    target_boxes: Float[Tensor, "b s 4"]
    """The box of the matched object; for background the region's own box."""
    target_indices: Int64[Tensor, "b s"]
    """The row of the matched object in the target of its image."""

    def first(self, count: int) -> "RegionSamples":
        """Return the first ``count`` samples of each image."""
        return RegionSamples(
            self.boxes[:, :count],
            self.valid[:, :count],
            self.labels[:, :count],
            self.target_boxes[:, :count],
            self.target_indices[:, :count],
        )


class RegionPooler:
    """Pools regions to a fixed size, each from the level that fits it."""

    def __init__(
        self, reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str] | None, config: RoIAlignConfig
    ) -> None:
        """Check that the pyramid has the levels.

        ``reader`` names the branch in errors; with ``levels=None`` those of ``p2..p5`` that the pyramid has are read.
        """
        self.config = config
        self.levels = tuple(levels or [level for level in LEVELS if level in feature_info] or LEVELS)
        require_levels(f"the {reader}", feature_info, self.levels)
        self.strides = [feature_info[level].stride for level in self.levels]
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(self.strides)):
            raise ValueError(f"the {reader} needs each level to halve the one before; got strides {self.strides}")
        self.channels = require_equal_channels(f"the {reader}", feature_info, self.levels)

    def __call__(self, features: Features, boxes: Float[Tensor, "b r 4"]) -> Float[Tensor, "br c s s"]:
        """Pool the boxes of all images into one batch that goes image by image."""
        return pool_regions([features[level] for level in self.levels], self.strides, boxes, self.config)


class RegionBranchConfig(Config, ABC):
    """The hyper-parameters of a branch that an R-CNN has beside its box branch, as a field of ``RCNNConfig``."""

    @property
    @abstractmethod
    def mask_format(self) -> MaskFormat | None:
        """Return the format that the branch needs the masks of the ground truth in; None where it needs none."""

    @abstractmethod
    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "RegionBranch":
        """Build the branch on a pyramid."""


class RegionBranch(nn.Module, ABC):
    """Predicts something more about each region than its box and class: a mask, keypoints, an attribute.

    ``forward`` is arithmetic on whole tensors, which can be compiled.
    """

    @abstractmethod
    def loss(self, features: Features, samples: RegionSamples, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Return losses and numbers to watch, as ``Head.loss`` does, under names that no other branch has.

        The samples are those that can have an object, the positives first; ``targets`` are the objects of each image.
        """

    @abstractmethod
    def predict(
        self, features: Features, boxes: Float[Tensor, "b r 4"], labels: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r *d"]:
        """Return what is predicted of each region, whose class is known."""

    @abstractmethod
    def attach(self, detections: Detections, values: Float[Tensor, "n *d"], size: tuple[int, int]) -> Detections:
        """Return the detections of one image, of (height, width) ``size``, with the values that ``predict`` gave."""


def region_convolutions(channels: int, widths: Sequence[int], norm: NormKind) -> nn.Sequential:
    """Return 3x3 convolutions with ReLU over pooled regions; He's normal initialization by fan-out, as detectron2."""
    blocks = nn.Sequential(
        *(conv_block(*pair, 3, norm_layer(norm), "relu") for pair in itertools.pairwise([channels, *widths]))
    )
    initialize_convolutions(blocks)
    return blocks


def initialize_convolutions(part: nn.Module) -> None:
    """Give convolutions He's normal initialization by fan-out (1502.01852), and biases of zero."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
