"""Several heads on the same feature maps, trained together, as in Panoptic FPN (1901.02446)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from ..ops import split_losses
from ..structures import FeatureInfo, Features, Images
from .base import HEADS, Head, HeadConfig, PredictsTensors, require_tensors, target_task_of_head

HeadName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
"""The name of a head: a single word, since it becomes part of parameter names and file names."""
AnyHeadConfig = Annotated[HeadConfig, *HEADS.field()]


class MultiHeadConfig(HeadConfig):
    """The options of a model with several heads."""

    name: Literal["multi_head"] = "multi_head"
    heads: dict[HeadName, AnyHeadConfig] = Field(min_length=2)
    """The heads, by names of your choice: ``{"boxes": RCNNConfig(), "semantic": SemanticFPNConfig()}``."""
    weights: dict[str, PositiveFloat] = Field(default={})
    """Multipliers of the losses by head name; 1 for heads that are not listed."""

    @model_validator(mode="after")
    def _check_weights(self) -> "MultiHeadConfig":
        if unknown := self.weights.keys() - self.heads.keys():
            raise ValueError(f"weights has unknown heads {sorted(unknown)}; the heads are {list(self.heads)}")
        return self


@HEADS.register("multi_head", MultiHeadConfig)
class MultiHead(Head[Mapping[str, Any], dict[str, Any]], PredictsTensors[dict[str, Any]]):
    """Several heads, each trained on the ground truth of its task; a prediction is a dict by head name."""

    task: ClassVar[str] = "multi_head"

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: Mapping[str, int], config: MultiHeadConfig
    ) -> None:
        """Build the heads; ``num_classes`` holds the number of classes by target task."""
        super().__init__()
        self.config = config
        self.heads = nn.ModuleDict()
        for name, head_config in config.heads.items():
            task = target_task_of_head(head_config.name)
            if task not in num_classes:
                raise ValueError(
                    f"the head {name!r} is for {task}, but there are classes for {', '.join(num_classes)} only"
                )
            self.heads[name] = HEADS.build(head_config, feature_info, num_classes[task])
        self.dense_parts = tuple(
            f"heads.{name}.{part}".rstrip(".") for name, head in self.named_heads() for part in head.dense_parts
        )

    def named_heads(self) -> Iterator[tuple[str, Head]]:
        """Yield (name, head) for each head."""
        for name, head in self.heads.items():
            assert isinstance(head, Head), "the constructor adds heads only"
            yield name, head

    def loss(self, features: Features, images: Images, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses and metrics of all heads, with the head's name in theirs.

        ``loss_class`` of a head ``boxes`` becomes ``loss_boxes_class``, its metric ``rpn_recall`` ``boxes_rpn_recall``.
        Each target is a dict with the ground truth of an image by task.
        """
        all_losses: dict[str, Tensor] = {}
        all_metrics: dict[str, Tensor] = {}
        for name, head in self.named_heads():
            weight = self.config.weights.get(name, 1.0)
            losses, metrics = split_losses(head.loss(features, images, [target[head.targets()] for target in targets]))
            all_losses |= {f"loss_{name}_{key.removeprefix('loss_')}": weight * loss for key, loss in losses.items()}
            all_metrics |= {f"{name}_{key}": values for key, values in metrics.items()}
        return all_losses | all_metrics

    def predict(self, features: Features, images: Images) -> list[dict[str, Any]]:
        """Return for each image a dict with the prediction of each head by its name."""
        by_head = {name: head.predict(features, images) for name, head in self.named_heads()}
        return _transpose(by_head, len(images))

    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Return the tensors of all heads, with the head's name before theirs: ``boxes.scores``."""
        return {
            f"{name}.{key}": tensor
            for name, head in self.named_heads()
            for key, tensor in require_tensors(head).predict_tensors(features, images).items()
        }

    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[dict[str, Any]]:
        """Return for each image a dict with the prediction of each head by its name."""
        by_head = {}
        for name, head in self.named_heads():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            by_head[name] = require_tensors(head).assemble(own, images)
        return _transpose(by_head, len(images))


def _transpose(by_head: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Turn the predictions of all images by head into a dict by head for each of ``count`` images."""
    return [{name: predictions[index] for name, predictions in by_head.items()} for index in range(count)]
