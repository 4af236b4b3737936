"""Several heads on one pyramid, trained together: boxes and semantics of one network (1901.02446)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from ..ops import metric_prefix
from ..structures import FeatureInfo, Features, Images
from .base import HEADS, Head, HeadConfig, task_of_head

HeadName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
"""A word: it stands in the names of parameters and files."""
AnyHeadConfig = Annotated[HeadConfig, *HEADS.field()]


class MultiHeadConfig(HeadConfig):
    """The heads by names of one's own: ``{"boxes": RCNNConfig(), "semantic": SemanticFPNConfig()}``."""

    name: Literal["multi_head"] = "multi_head"
    heads: dict[HeadName, AnyHeadConfig] = Field(min_length=2)
    weights: dict[str, PositiveFloat] = Field(default={})
    """What a head's losses are multiplied by; 1 where none is given."""

    @model_validator(mode="after")
    def _check_weights(self) -> "MultiHeadConfig":
        if strange := self.weights.keys() - self.heads.keys():
            raise ValueError(f"weights has {sorted(strange)}; the heads are {list(self.heads)}")
        return self


@HEADS.register("multi_head", MultiHeadConfig)
class MultiHead(Head[Mapping[str, Any], dict[str, Any]]):
    """Each head learns from the truth of its task; a prediction is a dict with what each head predicts, by its name."""

    task: ClassVar[str] = "multi_head"

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: Mapping[str, int], config: MultiHeadConfig
    ) -> None:
        """``num_classes`` is by task."""
        super().__init__()
        self.config = config
        self.heads = nn.ModuleDict()
        for name, part in config.heads.items():
            task = task_of_head(part.name)
            if task not in num_classes:
                raise ValueError(
                    f"the head {name!r} is for {task}; there are classes for {', '.join(num_classes)} only"
                )
            self.heads[name] = HEADS.build(part, feature_info, num_classes[task])

    def named_heads(self) -> Iterator[tuple[str, Head]]:
        """Each head with its name."""
        for name, head in self.heads.items():
            assert isinstance(head, Head), "the constructor puts heads in"
            yield name, head

    def dense_parts(self) -> Sequence[nn.Module]:
        """Those of every head."""
        return tuple(part for _, head in self.named_heads() for part in head.dense_parts())

    def loss(self, features: Features, images: Images, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Every head's losses, its name before theirs: ``loss_boxes_class``. A target is an image's truth by task."""
        losses: dict[str, Tensor] = {}
        for name, head in self.named_heads():
            weight = self.config.weights.get(name, 1.0)
            with metric_prefix(f"{name}_"):
                own = head.loss(features, images, [target[head.task] for target in targets])
            losses |= {f"loss_{name}_{key.removeprefix('loss_')}": weight * value for key, value in own.items()}
        return losses

    def predict(self, features: Features, images: Images) -> list[dict[str, Any]]:
        """What each head predicts, by its name."""
        found = {name: head.predict(features, images) for name, head in self.named_heads()}
        return [{name: own[place] for name, own in found.items()} for place in range(len(images))]
