"""What a head is: pyramid -> losses or predictions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from ..structures import Features, Images, MaskFormat, PartConfig, Registry

Target = TypeVar("Target")
Prediction = TypeVar("Prediction")


class HeadConfig(PartConfig):
    """The hyper-parameters of a head."""

    @property
    def mask_format(self) -> MaskFormat | None:
        """What the objects that it learns from must have their masks as; None where it needs none."""
        return None


class Head(nn.Module, ABC, Generic[Target, Prediction]):
    """Learns from and predicts on named feature maps; what it returns never depends on ``self.training``."""

    task: ClassVar[str]
    """What it predicts; the engine has scores, results and pictures for each task it knows."""

    def dense_parts(self) -> Sequence[nn.Module]:
        """The modules in it, itself perhaps, whose ``forward`` is arithmetic on whole tensors: what to compile."""
        return (self,)

    @abstractmethod
    def loss(self, features: Features, images: Images, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised; one target per image."""

    @abstractmethod
    def predict(self, features: Features, images: Images) -> list[Prediction]:
        """One prediction per image, in the frame of the images given."""


HEADS: Registry[Head] = Registry("head")
"""Heads by name; an entry builds from ``(feature_info, num_classes, config)``."""


def task_of_head(name: str) -> str:
    """What a head of this name predicts."""
    build = HEADS[name].build
    assert isinstance(build, type) and issubclass(build, Head), "heads are registered as classes"
    return build.task
