"""The head of Panoptic FPN (1901.02446): Mask R-CNN and Semantic FPN on one pyramid, with merged predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from ..structures import (
    FeatureInfo,
    Features,
    Images,
    MaskFormat,
    NonNegative,
    PanopticMergeConfig,
    PanopticParts,
)
from .base import HEADS, Head, HeadConfig, LearnsMasks, PredictsTensors
from .mask_branch import MaskBranchConfig
from .rcnn import RCNNConfig, RCNNHead
from .semantic import SemanticFPNConfig, SemanticFPNHead


class PanopticFPNConfig(HeadConfig, LearnsMasks):
    """The options of Panoptic FPN. The defaults are those of detectron2's COCO models with a ResNet-FPN."""

    name: Literal["panoptic_fpn"] = "panoptic_fpn"
    instances: RCNNConfig = RCNNConfig(mask=MaskBranchConfig())
    """The R-CNN head, which needs a mask branch."""
    semantic: SemanticFPNConfig = SemanticFPNConfig()
    """The semantic branch. The data set decides whether it has one class for all things or one for each thing class,
    see ``CocoPanopticConfig.semantic_things``."""
    instance_weight: NonNegative = 1.0
    """Weight of the R-CNN's losses except those of its RPN: lambda_i of the paper."""
    semantic_weight: NonNegative = 0.5
    """Weight of the losses of the semantic branch: lambda_s of the paper."""
    merge: PanopticMergeConfig = PanopticMergeConfig()
    """How detections and the class map are merged into one panoptic segmentation."""

    @model_validator(mode="after")
    def _check_masks(self) -> "PanopticFPNConfig":
        if self.instances.mask is None and self.instances.point_rend is None:
            raise ValueError("panoptic segments are masks: give instances a mask branch, mask=MaskBranchConfig()")
        if self.mask_format != "bitmaps":
            raise ValueError(
                "panoptic data sets have masks as bitmaps: choose 'sharp' or 'soft' as instances.mask.truth"
            )
        return self

    @property
    def mask_format(self) -> MaskFormat | None:
        """The format in which the ground truth must have masks."""
        return self.instances.mask_format


@HEADS.register("panoptic_fpn", PanopticFPNConfig)
class PanopticFPNHead(Head[Mapping[str, Any], dict[str, Any]], PredictsTensors[dict[str, Any]]):
    """Panoptic FPN: predicts objects with masks and a class map, which are merged into non-overlapping segments.

    A target is a dict with ``detection`` (the things) and ``semantic`` (a class map: the stuff classes, then one class
    for all things or one for each). A prediction is a dict with these two and ``panoptic``, the parts to be merged.
    """

    task: ClassVar[str] = "panoptic"
    predicted_tasks: ClassVar[tuple[str, ...]] = ("panoptic", "detection", "semantic")

    def __init__(
        self,
        feature_info: Mapping[str, FeatureInfo],
        num_classes: Mapping[str, int],
        config: PanopticFPNConfig = PanopticFPNConfig(),
    ) -> None:
        """Build both branches; ``num_classes`` maps each task to its number of classes.

        Raises ValueError if a task is missing, or if there is no stuff class or no semantic class for things.
        """
        super().__init__()
        self.config = config
        if missing := [task for task in self.predicted_tasks if task not in num_classes]:
            raise ValueError(
                f"a panoptic head needs the classes of {', '.join(self.predicted_tasks)}; there are none for "
                f"{' and '.join(missing)}: use a panoptic data set, or give the class names as a dict by task"
            )
        self.num_things = num_classes["detection"]
        self.num_stuff = num_classes["panoptic"] - self.num_things
        if not 1 <= self.num_stuff < num_classes["semantic"]:
            raise ValueError(
                "a panoptic head needs at least one stuff class, and one class for things in the class map; got "
                + ", ".join(f"{num_classes[task]} classes for {task}" for task in self.predicted_tasks)
            )
        self.instances = RCNNHead(feature_info, self.num_things, config.instances)
        self.semantic = SemanticFPNHead(feature_info, num_classes["semantic"], config.semantic)
        self.dense_parts = (*(f"instances.{part}" for part in self.instances.dense_parts), "semantic")

    def loss(self, features: Features, images: Images, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses of both branches, times the weights of the config, and their metrics."""
        instances = self.instances.loss(features, images, [target["detection"] for target in targets])
        for name in instances:
            if name.startswith("loss_") and not name.startswith("loss_rpn_"):
                instances[name] = self.config.instance_weight * instances[name]
        semantic = self.semantic.loss(features, images, [target["semantic"] for target in targets])
        return instances | {name: self.config.semantic_weight * loss for name, loss in semantic.items()}

    def predict(self, features: Features, images: Images) -> list[dict[str, Any]]:
        """Return for each image a dict with the predictions of both branches and the parts to merge."""
        return self.assemble(self.predict_tensors(features, images), images)

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the tensors of both branches."""
        instances = self.instances.predict_tensors(features, images)
        return instances | self.semantic.predict_tensors(features, images)

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[dict[str, Any]]:
        """Return for each image a dict with the predictions of both branches and the parts to merge."""
        detections, logits = self.instances.assemble(tensors, images), self.semantic.assemble(tensors, images)
        sizes, merge = (self.num_things, self.num_stuff), self.config.merge
        return [
            {"panoptic": PanopticParts(objects, classes, *sizes, merge), "detection": objects, "semantic": classes}
            for objects, classes in zip(detections, logits, strict=True)
        ]
