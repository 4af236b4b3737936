"""Several heads on one pyramid, trained together: boxes and semantics of one network (1901.02446)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from ..ops import split_losses
from ..structures import FeatureInfo, Features, Images
from .base import HEADS, Head, HeadConfig, target_task_of_head

HeadName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
"""A word: it stands in the names of parameters and files."""
AnyHeadConfig = Annotated[HeadConfig, *HEADS.field()]


class MultiHeadConfig(HeadConfig):
    """The heads by names of one's choice: ``{"boxes": RCNNConfig(), "semantic": SemanticFPNConfig()}``."""

    name: Literal["multi_head"] = "multi_head"
    heads: dict[HeadName, AnyHeadConfig] = Field(min_length=2)
    weights: dict[str, PositiveFloat] = Field(default={})
    """What the losses of a head are multiplied by; 1 where none is given."""

    @model_validator(mode="after")
    def _check_weights(self) -> "MultiHeadConfig":
        if unknown := self.weights.keys() - self.heads.keys():
            raise ValueError(f"weights has {sorted(unknown)}; the heads are {list(self.heads)}")
        return self


@HEADS.register("multi_head", MultiHeadConfig)
class MultiHead(Head[Mapping[str, Any], dict[str, Any]]):
    """Each head learns from the ground truth of its task; a prediction is a dict of each head's, by its name."""

    task: ClassVar[str] = "multi_head"

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: Mapping[str, int], config: MultiHeadConfig
    ) -> None:
        """Build the heads; ``num_classes`` is by task."""
        super().__init__()
        self.config = config
        self.heads = nn.ModuleDict()
        for name, head_config in config.heads.items():
            task = target_task_of_head(head_config.name)
            if task not in num_classes:
                raise ValueError(
                    f"the head {name!r} is for {task}; there are classes for {', '.join(num_classes)} only"
                )
            self.heads[name] = HEADS.build(head_config, feature_info, num_classes[task])
        self.dense_parts = tuple(
            f"heads.{name}.{part}".rstrip(".") for name, head in self.named_heads() for part in head.dense_parts
        )

    def named_heads(self) -> Iterator[tuple[str, Head]]:
        """Yield each head with its name."""
        for name, head in self.heads.items():
            assert isinstance(head, Head), "the constructor puts heads in"
            yield name, head

    def loss(self, features: Features, images: Images, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return what every head returns under names with the head's: ``loss_boxes_class``, ``boxes_rpn_recall``.

        A target is the ground truth of an image by task.
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
        """Return what each head predicts of an image, by the head's name."""
        predictions = {name: head.predict(features, images) for name, head in self.named_heads()}
        return [{name: of_head[index] for name, of_head in predictions.items()} for index in range(len(images))]
