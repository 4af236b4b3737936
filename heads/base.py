"""What a head is: pyramid -> losses or predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from ..structures import FeatureInfo, Features, Images, MaskFormat, PartConfig, Registry, UsageError

Target = TypeVar("Target")
Prediction = TypeVar("Prediction")


class HeadConfig(PartConfig):
    """The hyper-parameters of a head."""


class LearnsMasks(ABC):
    """A base for the config of a head that can learn masks of objects."""

    @property
    @abstractmethod
    def mask_format(self) -> MaskFormat | None:
        """Return the format that the masks of the ground truth must have; None where this config needs no masks."""


def required_mask_format(config: HeadConfig) -> MaskFormat | None:
    """Return what a head of this config needs the masks of the ground truth as, or None where it needs none."""
    return config.mask_format if isinstance(config, LearnsMasks) else None


class Head(nn.Module, ABC, Generic[Target, Prediction]):
    """Learns from and predicts on named feature maps; what it returns never depends on ``self.training``."""

    task: ClassVar[str]
    """What the head predicts: the name of a task in ``vertebra.engine.TASKS``, which scores, writes and draws it."""

    target_task: ClassVar[str] = ""
    """The task of the data sets that the head learns from, where that is another: a head that counts objects learns
    from data for ``detection``."""

    dense_parts: Sequence[str] = ("",)
    """The submodules whose ``forward`` is arithmetic on whole tensors, which is what to compile; "" is the head itself.
    Together they hold all of its parameters."""

    def targets(self) -> str:
        """Return the task of the data sets that the head learns from."""
        return self.target_task or self.task

    @abstractmethod
    def loss(self, features: Features, images: Images, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses, one target per image, and numbers to watch; :mod:`vertebra.ops.losses` has the convention.

        A name that begins with ``loss_`` is a scalar to minimize; any other name is a detached 1-D tensor of which the
        mean is logged.
        """

    @abstractmethod
    def predict(self, features: Features, images: Images) -> list[Prediction]:
        """Return one prediction per image, in the frame of the images given."""


HEADS: Registry[Head] = Registry("head")
"""Heads by name; an entry builds from ``(feature_info, num_classes, config)``."""


def task_of_head(name: str) -> str:
    """Return the task of the head that is registered under a name: what it predicts."""
    return _head_class(name).task


def target_task_of_head(name: str) -> str:
    """Return the task of the data sets that the head registered under a name learns from."""
    head = _head_class(name)
    return head.target_task or head.task


def _head_class(name: str) -> type[Head]:
    """Return the class of a head; UsageError where a function is registered, which cannot say what it predicts."""
    build = HEADS[name].build
    if not (isinstance(build, type) and issubclass(build, Head)):
        raise UsageError(
            f"the head {name!r} is registered as {build!r}, which does not say what it predicts",
            "register a class that derives from vertebra.Head and has a task",
        )
    return build


def require_levels(reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str]) -> None:
    """Raise ValueError where the pyramid lacks one of the levels that a part of a head reads."""
    missing = [level for level in levels if level not in feature_info]
    if not missing:
        return
    fix = "name levels that it has in the head's config, or let the backbone give more"
    if any(level.startswith("p") for level in missing):
        fix = "put a neck before the head that makes them, such as 'fpn'"
    raise ValueError(f"{reader} reads levels {tuple(levels)}; the pyramid has {tuple(feature_info)}: {fix}")


def require_equal_channels(reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str]) -> int:
    """Return the channels that all these levels have; raise ValueError where they differ."""
    channels = [feature_info[level].channels for level in levels]
    if len(set(channels)) > 1:
        raise ValueError(
            f"{reader} needs the same channels on all levels; {tuple(levels)} have {channels}: use a neck, "
            "such as 'fpn'"
        )
    return channels[0]
