"""The head of Faster, Mask and Keypoint R-CNN: an RPN, a box branch and others (1506.01497, 1612.03144, 1703.06870)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from ..ops import PaddedDetections, PaddedTargets, scale_gradient
from ..structures import Detections, FeatureInfo, Features, Images, MaskFormat
from .base import HEADS, DetectionHead, HeadConfig, LearnsKeypoints, LearnsMasks, PredictsTensors, require_classes
from .box_branch import BoxBranch, BoxBranchConfig, BoxOutput
from .keypoint_branch import KeypointBranchConfig
from .mask_branch import MaskBranchConfig
from .point_rend import PointRendBranchConfig
from .regions import RegionBranch, RegionBranchConfig, RegionSamples
from .rpn import RPN, RPNConfig, proposal_recall


class RCNNConfig(HeadConfig, LearnsMasks, LearnsKeypoints):
    """The options of an R-CNN head. Each field with a ``RegionBranchConfig`` adds a branch with the field's name."""

    name: Literal["rcnn"] = "rcnn"
    rpn: RPNConfig = RPNConfig()
    box: BoxBranchConfig = BoxBranchConfig()
    cascade: tuple[BoxBranchConfig, ...] = ()
    """Further box branches, each of which refines the boxes of the previous one: Cascade R-CNN (1712.00726). Their
    sampling fields are not used, and detections are selected by the last one's fields."""
    cascade_scores: Literal["probabilities", "logits"] = "probabilities"
    """Average the class ``probabilities`` of the stages of a cascade to get the scores of detections (detectron2), or
    average the class ``logits``, whose softmax gives the scores (MMDetection)."""
    mask: MaskBranchConfig | None = None
    """The mask branch of Mask R-CNN. None: Faster R-CNN."""
    keypoint: KeypointBranchConfig | None = None
    """The keypoint branch of Keypoint R-CNN. None: no keypoints."""
    point_rend: PointRendBranchConfig | None = None
    """PointRend's mask branch (1912.08193), in place of ``mask``."""
    branch_boxes: Literal["proposals", "refined"] = "proposals"
    """The boxes on which the branches other than the box branch are trained: the ``proposals``, or the ``refined``
    boxes, which the first box branch predicts for the class of the assigned object. detectron2's PointRend trains on
    refined boxes, but does not clip them to the image as we do."""

    @model_validator(mode="after")
    def _check_mask_branches(self) -> "RCNNConfig":
        if self.mask is not None and self.point_rend is not None:
            raise ValueError("mask and point_rend both predict masks: set one of them to None (null)")
        return self

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

    @property
    def keypoint_names(self) -> tuple[str, ...] | None:
        """The keypoints that the ground truth must have; None without a keypoint branch."""
        return None if self.keypoint is None else self.keypoint.names


def _cascade_stage(match_threshold: float, weight: float) -> BoxBranchConfig:
    weights = (weight, weight, weight / 2, weight / 2)
    return BoxBranchConfig(match_threshold=match_threshold, box_weights=weights, class_agnostic=True)


CASCADE = RCNNConfig(box=_cascade_stage(0.5, 10.0), cascade=(_cascade_stage(0.6, 20.0), _cascade_stage(0.7, 30.0)))
"""Cascade R-CNN with the three stages of the paper, as in detectron2; add ``mask`` for Cascade Mask R-CNN."""


@HEADS.register("rcnn", RCNNConfig)
class RCNNHead(DetectionHead, PredictsTensors[Detections]):
    """Faster or Mask R-CNN: predicts boxes with classes and scores, and the outputs of further branches."""

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: RCNNConfig = RCNNConfig()
    ) -> None:
        super().__init__()
        require_classes("a detector", num_classes)
        self.num_classes = num_classes
        self.branch_boxes, self.cascade_scores = config.branch_boxes, config.cascade_scores
        self.rpn = RPN(feature_info, config.rpn)
        self.box = BoxBranch(feature_info, num_classes, config.box)
        self.cascade = nn.ModuleList(BoxBranch(feature_info, num_classes, stage) for stage in config.cascade)
        for name, branch in config.region_branches.items():
            self.add_module(name, branch.build(feature_info, num_classes))
        stages = (f"cascade.{index}" for index in range(len(self.cascade)))
        self.dense_parts = ("rpn", "box", *stages, *config.region_branches)  # without NMS, assignment and sampling

    def box_branches(self) -> list[BoxBranch]:
        """Return the box branches of all stages in their order."""
        later = [stage for stage in self.cascade if isinstance(stage, BoxBranch)]
        return [self.box, *later]

    def region_branches(self) -> Iterator[tuple[str, RegionBranch]]:
        """Yield (name, branch) for each branch except the box branches."""
        for name, part in self.named_children():
            if isinstance(part, RegionBranch):
                yield name, part

    def padded_loss(self, features: Features, images: Images, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute ``loss_rpn_objectness``, ``loss_rpn_box``, ``loss_class``, ``loss_box`` and losses of other branches.

        The metrics are ``rpn_positives`` and ``box_positives``, the number of positive samples per image, and
        ``rpn_recall``, the fraction of objects that have a proposal. The names of later stages of a cascade end in the
        number of the stage: ``loss_class_2``.
        """
        dense = self.rpn(features, images)
        outputs = self.rpn.loss(dense, targets)
        proposals = self.rpn.propose(dense, images, training=True)
        outputs["rpn_recall"] = proposal_recall(proposals, targets, self.box.config.match_threshold)
        samples = self.box.sample(proposals, targets)
        losses, output = self._box_losses(features, images, samples, targets)
        outputs |= losses
        if self.branch_boxes == "refined":
            samples = self._refine_samples(samples, output, images)
        for _, branch in self.region_branches():
            outputs |= branch.loss(features, samples.first(self.box.config.max_positives), targets)
        return outputs

    def _refine_samples(self, samples: RegionSamples, output: BoxOutput, images: Images) -> RegionSamples:
        """Return the samples with refined boxes; a box whose refinement has no area stays as it was."""
        refined = self.box.refine(output, samples.proposals, images, samples.labels)
        return samples._replace(boxes=torch.where(refined.valid[:, :, None], refined.boxes, samples.boxes))

    def _box_losses(
        self, features: Features, images: Images, samples: RegionSamples, targets: PaddedTargets
    ) -> tuple[dict[str, Tensor], BoxOutput]:
        """Compute the losses of all stages; return them and the output of the first stage.

        Each stage is trained on the refined boxes of the previous one.
        """
        stages = self.box_branches()
        # Otherwise every stage would add to the gradients of the pyramid (1712.00726's code, detectron2).
        features = {name: scale_gradient(level, 1 / len(stages)) for name, level in features.items()}
        first_output = output = self.box(features, samples.proposals)
        losses = self.box.loss(output, samples)
        for number, (previous, stage) in enumerate(itertools.pairwise(stages), start=2):
            refined = previous.refine(output, samples.proposals, images, samples.labels)
            samples = stage.relabel(refined, targets)
            output = stage(features, samples.proposals)
            losses |= {f"{name}_{number}": value for name, value in stage.loss(output, samples).items()}
        return losses, first_output

    def detect(self, features: Features, images: Images) -> tuple[PaddedDetections, dict[str, Tensor]]:
        """Return padded detections, and the predictions of further branches for them by branch name.

        Use it for compilation and export: in a graph, all shapes depend only on the config and on the shapes of the
        arguments.
        """
        detections = self.detect_boxes(features, images)
        return detections, {name: branch.predict(features, detections) for name, branch in self.region_branches()}

    def detect_boxes(self, features: Features, images: Images) -> PaddedDetections:
        """Return padded detections without the predictions of further branches."""
        proposals = self.rpn.propose(self.rpn(features, images), images, training=False)
        stages = self.box_branches()
        outputs = [self.box(features, proposals)]
        for previous, stage in itertools.pairwise(stages):
            proposals = previous.refine(outputs[-1], proposals, images)
            outputs.append(stage(features, proposals))
        return stages[-1].detect(outputs[-1], self._mean_scores(outputs), proposals, images)

    def _mean_scores(self, outputs: Sequence[BoxOutput]) -> Float[Tensor, "b r c"]:
        """Return the probability of each class from the outputs of all stages."""
        if self.cascade_scores == "logits":
            mean = torch.stack([output.logits for output in outputs]).mean(dim=0)
            return self.box.scores(outputs[0]._replace(logits=mean))
        return torch.stack([self.box.scores(output) for output in outputs]).mean(dim=0)

    def predict(self, features: Features, images: Images) -> list[Detections]:
        """Return the detections of each image, best first."""
        return self.assemble(self.predict_tensors(features, images), images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the padded detections, and what the further branches predict for them by branch name."""
        padded, values = self.detect(features, images)
        return padded.tensors() | values

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[Detections]:
        """Return the detections of each image with the outputs of all branches."""
        padded = PaddedDetections.from_tensors(tensors).unpad()
        predictions = []
        for index, (detections, size) in enumerate(zip(padded, images.size_list(), strict=True)):
            for name, branch in self.region_branches():
                detections = branch.attach(detections, tensors[name][index, : len(detections)], size)
            predictions.append(detections)
        return predictions
