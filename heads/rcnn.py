"""Faster R-CNN's head: an RPN and a box branch on one pyramid (1506.01497, 1612.03144)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from ..ops import is_collecting_metrics, note
from ..structures import Detections, FeatureInfo, Features, Images, Instances, MaskFormat, RoIMasks, check_targets
from .base import HEADS, Head, HeadConfig
from .box_branch import BoxBranch, BoxBranchConfig, PaddedDetections, RegionSamples
from .mask_branch import MaskBranch, MaskBranchConfig
from .rpn import RPN, RPNConfig, proposal_recall


class RCNNConfig(HeadConfig):
    """The branches of an R-CNN."""

    name: Literal["rcnn"] = "rcnn"
    rpn: RPNConfig = RPNConfig()
    box: BoxBranchConfig = BoxBranchConfig()
    mask: MaskBranchConfig | None = None
    """With it the head is Mask R-CNN's."""

    @property
    def mask_format(self) -> MaskFormat | None:
        """The mask branch's."""
        return None if self.mask is None else self.mask.mask_format


@HEADS.register("rcnn", RCNNConfig)
class RCNNHead(Head[Instances, Detections]):
    """Pyramid -> boxes with a class and a score."""

    task: ClassVar[str] = "detection"

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: RCNNConfig = RCNNConfig()
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a detector needs at least one class; got num_classes={num_classes}")
        self.rpn = RPN(feature_info, config.rpn)
        self.box = BoxBranch(feature_info, num_classes, config.box)
        self.mask = None if config.mask is None else MaskBranch(feature_info, num_classes, config.mask)

    def dense_parts(self) -> Sequence[nn.Module]:
        """All but what lies between them: suppression, matching and sampling."""
        return tuple(part for part in (self.rpn, self.box, self.mask) if part is not None)

    def loss(self, features: Features, images: Images, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """``loss_rpn_objectness``, ``loss_rpn_box``, ``loss_class``, ``loss_box``; ``loss_mask`` with a mask branch.

        To watch: the share of objects that have a proposal, and the positives per image of both samples.
        """
        check_targets(targets, images, self.box.num_classes)
        dense = self.rpn(features, images)
        losses = self.rpn.loss(dense, targets)
        proposals = self.rpn.propose(dense, images, training=True)
        samples = self.box.sample(proposals, targets)
        if is_collecting_metrics():
            note("rpn_recall", proposal_recall(proposals, targets, self.box.config.match_threshold))
            note("box_positives", (samples.labels < self.box.num_classes).sum(dim=1))
        losses |= self.box.loss(features, samples)
        if self.mask is not None:
            most = self.box.config.max_positives
            losses |= self.mask.loss(features, RegionSamples(*(part[:, :most] for part in samples)), targets)
        return losses

    def detect(self, features: Features, images: Images) -> PaddedDetections:
        """Detections padded to a fixed number: the form for export, where every shape follows from the config."""
        return self._with_masks(features, self._boxes(features, images))

    def _boxes(self, features: Features, images: Images) -> PaddedDetections:
        proposals = self.rpn.propose(self.rpn(features, images), images, training=False)
        return self.box.detect(features, proposals, images)

    def _with_masks(self, features: Features, found: PaddedDetections) -> PaddedDetections:
        if self.mask is None:
            return found
        return found._replace(masks=self.mask(features, found.boxes, found.labels).sigmoid())

    def predict(self, features: Features, images: Images) -> list[Detections]:
        """The same without the padding, image by image."""
        found = self._boxes(features, images)
        most = int(found.valid.sum(dim=1).max())  # padding comes last, and a mask of it would cost as any other
        padded = self._with_masks(features, PaddedDetections(*(part[:, :most] for part in found[:4])))
        detections = [
            Detections(boxes[valid], labels[valid], scores[valid])
            for boxes, labels, scores, valid in zip(*padded[:4], strict=True)
        ]
        if self.mask is None or padded.masks is None:
            return detections
        rule, sizes = self.mask.config.paste, images.sizes.tolist()
        return [
            replace(found, masks=RoIMasks(grids[valid], (size[0], size[1]), rule))
            for found, grids, valid, size in zip(detections, padded.masks, padded.valid, sizes, strict=True)
        ]
