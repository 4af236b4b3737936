"""RetinaNet: anchors on a pyramid, each with a score per class and a box, learned with the focal loss (1708.02002)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from ..ops import (
    IGNORED,
    POSITIVE,
    NormKind,
    PaddedDetections,
    PaddedTargets,
    PyramidAnchors,
    StrideRule,
    all_reduce_mean,
    assign_boxes,
    decode_boxes,
    encode_boxes,
    flatten_cells,
    gather_rows,
    paired_giou,
)
from ..structures import FeatureInfo, Features, Images, NonNegative, UnitInterval
from .base import HEADS, HeadConfig, require_classes
from .class_rows import ClassRows
from .dense import (
    AnchorRatios,
    AnchorSizes,
    DenseHead,
    DenseSelectionConfig,
    MatchThresholds,
    PyramidLevels,
    dense_tower,
    grids_of,
    initialize_dense,
    initialize_prior,
    select_on_levels,
)

OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""The sizes of a level's anchors as multiples of the smallest (1708.02002 section 4)."""


class RetinaNetConfig(HeadConfig):
    """The options of a RetinaNet. Defaults are detectron2's; where torchvision differs, the field says so."""

    name: Literal["retinanet"] = "retinanet"
    levels: tuple[str, ...] | None = None
    """Levels to read; None takes every ``p`` level."""
    convolutions: int = Field(default=4, ge=0)
    """3x3 convolutions before the class logits, and as many before the boxes."""
    norm: NormKind = "none"
    """The norm that follows each of them. torchvision's ``v2``: ``group``."""
    anchor_sizes: AnchorSizes | None = None
    """Anchor sizes in pixels, per level; None gives each level three, which begin at 4 strides and are a third of an
    octave apart: 32, 40.3 and 50.8 on p3. torchvision truncates them to whole pixels."""
    anchor_ratios: AnchorRatios = (0.5, 1.0, 2.0)
    """Height over width."""
    round_anchors: bool = False
    """Whether anchors are rounded to whole pixels. torchvision: True."""
    anchor_stride: StrideRule = "exact"
    """torchvision: ``grid``."""
    match_thresholds: MatchThresholds = (0.4, 0.5)
    """An anchor is negative below the first IoU, positive from the second up, ignored between."""
    ignore_coverage: UnitInterval = 0.5
    """A negative anchor with this fraction of its area inside an ignore region is not a negative."""
    focal_alpha: UnitInterval = 0.25
    """The weight of positives in the focal loss; negatives have one minus it."""
    focal_gamma: NonNegative = 2.0
    """How strongly the focal loss discounts what is classified well already."""
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    """On the encoded offsets, or GIoU on the boxes (1902.09630). torchvision's ``v2``: ``giou``."""
    beta: NonNegative = 0.0
    """Where smooth L1 turns linear, in encoded units; 0 is plain L1."""
    normalizer: Literal["average", "batch", "image"] = "average"
    """The number of positive anchors that the losses are divided by. ``average``: of an image, as a moving average over
    the steps (detectron2). ``batch``: of all images of the step. ``image``: of each image by itself, then the mean over
    the images (torchvision)."""
    selection: DenseSelectionConfig = DenseSelectionConfig()
    """torchvision keeps 300 detections."""

    def sizes_for(self, strides: Sequence[int]) -> AnchorSizes:
        """Return the anchor sizes of levels with these strides: ``anchor_sizes``, or if it is None three per level."""
        return self.anchor_sizes or tuple(tuple(4 * stride * step for step in OCTAVE) for stride in strides)


class RetinaNetLevel(NamedTuple):
    """The output for every anchor of one level."""

    anchors: Float[Tensor, "n 4"]
    logits: Float[Tensor, "b n c"]
    offsets: Float[Tensor, "b n 4"]

    def scores(self) -> Float[Tensor, "b n c"]:
        """Return the probability of each class."""
        return self.logits.sigmoid()

    def boxes(self, indices: Int64[Tensor, "b k"]) -> Float[Tensor, "b k 4"]:
        """Return the boxes of some anchors."""
        return decode_boxes(gather_rows(self.offsets, indices), self.anchors[indices])


@HEADS.register("retinanet", RetinaNetConfig)
class RetinaNetHead(DenseHead):
    """Pyramid -> boxes with a class and a score, in one stage."""

    INITIAL_POSITIVES: ClassVar[float] = 50.0
    """Where the moving average of positives begins: detectron2's 100, at its two images per GPU."""
    MOMENTUM: ClassVar[float] = 0.9
    """The weight of the past in the moving average at every step (detectron2)."""

    positives_per_image: Tensor

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: RetinaNetConfig = RetinaNetConfig()
    ) -> None:
        super().__init__()
        require_classes("RetinaNet", num_classes)
        self.config, self.num_classes = config, num_classes
        self.levels = PyramidLevels.choose("RetinaNet", feature_info, config.levels)
        strides, channels = self.levels.strides, self.levels.channels
        self.anchors = PyramidAnchors(
            strides,
            config.sizes_for(strides),
            config.anchor_ratios,
            rounded=config.round_anchors,
            stride_rule=config.anchor_stride,
        )
        self.class_tower = dense_tower(channels, config.convolutions, config.norm)
        self.box_tower = dense_tower(channels, config.convolutions, config.norm)
        self.class_logits = nn.Conv2d(channels, self.anchors.per_cell * num_classes, 3, padding=1)
        self.box_offsets = nn.Conv2d(channels, self.anchors.per_cell * 4, 3, padding=1)
        for layer in (self.class_logits, self.box_offsets):
            initialize_dense(layer)
        initialize_prior(self.class_logits)
        self.class_rows = {"class_logits": ClassRows(repeats=self.anchors.per_cell)}
        if config.normalizer == "average":
            self.register_buffer("positives_per_image", torch.tensor(self.INITIAL_POSITIVES))

    def forward(self, features: Features, images: Images) -> list[RetinaNetLevel]:
        """Compute class logits and box offsets of every anchor."""
        maps = self.levels.read(features)
        anchors = self.anchors(grids_of(maps), images.padded_size)
        logits = [flatten_cells(self.class_logits(self.class_tower(level)), self.num_classes) for level in maps]
        offsets = [flatten_cells(self.box_offsets(self.box_tower(level)), 4) for level in maps]
        return [
            RetinaNetLevel(level_anchors, level_logits.float(), level_offsets.float())
            for level_anchors, level_logits, level_offsets in zip(anchors, logits, offsets, strict=True)
        ]

    def padded_loss(self, features: Features, images: Images, targets: PaddedTargets) -> dict[str, Tensor]:
        """Return ``loss_class``, the focal loss of every anchor and class, and ``loss_box`` of the positive anchors.

        To watch: ``positives``, the positive anchors per image.
        """
        config = self.config
        anchors, logits, offsets = (torch.cat(column, dim=-2) for column in zip(*self(features, images), strict=True))
        with torch.no_grad():
            match = assign_boxes(
                anchors, targets, config.match_thresholds, keep_best=True, ignore_coverage=config.ignore_coverage
            )
        positive = match.labels == POSITIVE
        labels = targets.labels.gather(1, match.target_indices)
        classes = torch.zeros_like(logits).scatter(2, labels[:, :, None], positive[:, :, None].to(logits.dtype))
        focal = sigmoid_focal_loss(logits, classes, config.focal_alpha, config.focal_gamma).sum(dim=2)
        errors = self._box_errors(anchors, offsets, gather_rows(targets.boxes, match.target_indices))
        positives = positive.sum(dim=1)
        count = self._normalizer(positives)
        return {
            "loss_class": ((focal * (match.labels != IGNORED)).sum(dim=1) / count).mean(),
            "loss_box": ((errors * positive).sum(dim=1) / count).mean(),
            "positives": positives,
        }

    def _box_errors(
        self, anchors: Float[Tensor, "n 4"], offsets: Float[Tensor, "b n 4"], boxes: Float[Tensor, "b n 4"]
    ) -> Float[Tensor, "b n"]:
        """Return the box loss of each anchor if it had to predict the box of its row."""
        if self.config.box_loss == "giou":
            return 1 - paired_giou(decode_boxes(offsets, anchors), boxes)
        encoded = encode_boxes(boxes, anchors)
        return F.smooth_l1_loss(offsets, encoded, reduction="none", beta=self.config.beta).sum(dim=2)

    def _normalizer(self, positives: Int64[Tensor, " b"]) -> Float[Tensor, "*b"]:
        """Return what to divide the losses of an image by, from the number of positive anchors in each image.

        In training the moving average takes the batch in.
        """
        if self.config.normalizer == "image":
            return positives.clamp(min=1).float()
        mean = all_reduce_mean(positives.float().mean()).clamp(min=1 / len(positives))
        if self.config.normalizer == "batch":
            return mean
        average = self.MOMENTUM * self.positives_per_image + (1 - self.MOMENTUM) * mean
        if self.training:
            self.positives_per_image.copy_(average)
        return average

    def detect(self, features: Features, images: Images) -> PaddedDetections:
        """Return a fixed number of detections per image: the form for export, whose shapes follow from the config."""
        return select_on_levels(self(features, images), images.sizes, self.config.selection)
