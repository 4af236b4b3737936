"""The head of Faster and Mask R-CNN: an RPN, a box branch and further branches (1506.01497, 1612.03144, 1703.06870)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from ..ops import PaddedDetections
from ..structures import Detections, FeatureInfo, Features, Images, Instances, MaskFormat, check_targets
from .base import HEADS, Head, HeadConfig, LearnsMasks
from .box_branch import BoxBranch, BoxBranchConfig
from .mask_branch import MaskBranchConfig
from .regions import RegionBranch, RegionBranchConfig
from .rpn import RPN, RPNConfig, proposal_recall


class RCNNConfig(HeadConfig, LearnsMasks):
    """The options of an R-CNN head. Each field with a ``RegionBranchConfig`` adds a branch with the field's name."""

    name: Literal["rcnn"] = "rcnn"
    rpn: RPNConfig = RPNConfig()
    box: BoxBranchConfig = BoxBranchConfig()
    mask: MaskBranchConfig | None = None
    """The mask branch of Mask R-CNN. None: Faster R-CNN."""

    @property
    def region_branches(self) -> dict[str, RegionBranchConfig]:
        """The configs of all branches except the box branch, by name."""
        return {name: part for name, part in self if isinstance(part, RegionBranchConfig)}

    @property
    def mask_format(self) -> MaskFormat | None:
        """The format in which the ground truth must have masks; None if no branch needs masks."""
        for branch in self.region_branches.values():
            if branch.mask_format is not None:
                return branch.mask_format
        return None


@HEADS.register("rcnn", RCNNConfig)
class RCNNHead(Head[Instances, Detections]):
    """Faster or Mask R-CNN: predicts boxes with classes and scores, and the outputs of further branches."""

    task: ClassVar[str] = "detection"

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: RCNNConfig = RCNNConfig()
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a detector needs at least one class; got num_classes={num_classes}")
        self.rpn = RPN(feature_info, config.rpn)
        self.box = BoxBranch(feature_info, num_classes, config.box)
        for name, branch in config.region_branches.items():
            self.add_module(name, branch.build(feature_info, num_classes))
        self.dense_parts = ("rpn", "box", *config.region_branches)  # without NMS, assignment and sampling

    def region_branches(self) -> Iterator[tuple[str, RegionBranch]]:
        """Yield (name, branch) for each branch except the box branch."""
        for name, part in self.named_children():
            if isinstance(part, RegionBranch):
                yield name, part

    def loss(self, features: Features, images: Images, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Compute ``loss_rpn_objectness``, ``loss_rpn_box``, ``loss_class``, ``loss_box`` and losses of other branches.

        The metrics are ``rpn_positives`` and ``box_positives``, the number of positive samples per image, and
        ``rpn_recall``, the fraction of objects that have a proposal.
        """
        check_targets(targets, images, self.box.num_classes)
        dense = self.rpn(features, images)
        outputs = self.rpn.loss(dense, targets)
        proposals = self.rpn.propose(dense, images, training=True)
        outputs["rpn_recall"] = proposal_recall(proposals, targets, self.box.config.match_threshold)
        samples = self.box.sample(proposals, targets)
        outputs |= self.box.loss(self.box(features, samples.boxes), samples)
        for _, branch in self.region_branches():
            outputs |= branch.loss(features, samples.first(self.box.config.max_positives), targets)
        return outputs

    def detect(self, features: Features, images: Images) -> tuple[PaddedDetections, dict[str, Tensor]]:
        """Return padded detections, and the predictions of further branches for them by branch name.

        Use it for export: the shapes depend on the config only.
        """
        detections = self._detect_boxes(features, images)
        return detections, self._predict_regions(features, detections)

    def _detect_boxes(self, features: Features, images: Images) -> PaddedDetections:
        proposals = self.rpn.propose(self.rpn(features, images), images, training=False)
        return self.box.detect(self.box(features, proposals.boxes), proposals, images)

    def _predict_regions(self, features: Features, detections: PaddedDetections) -> dict[str, Tensor]:
        return {
            name: branch.predict(features, detections.boxes, detections.labels)
            for name, branch in self.region_branches()
        }

    def predict(self, features: Features, images: Images) -> list[Detections]:
        """Return the detections of each image, best first."""
        padded = self._detect_boxes(features, images).trim()  # so that further branches compute less padding
        values = self._predict_regions(features, padded)
        predictions = []
        for index, (detections, size) in enumerate(zip(padded.unpad(), images.sizes.tolist(), strict=True)):
            for name, branch in self.region_branches():
                values_of_image = values[name][index, padded.valid[index]]
                detections = branch.attach(detections, values_of_image, (size[0], size[1]))
            predictions.append(detections)
        return predictions
