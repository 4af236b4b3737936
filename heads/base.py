"""The interface of heads: modules that turn feature maps into losses or predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from ..ops import PaddedTargets, pad_targets
from ..structures import (
    Detections,
    FeatureInfo,
    Features,
    Images,
    Instances,
    MaskFormat,
    PartConfig,
    Registry,
    UsageError,
    check_targets,
)

Target = TypeVar("Target")
Prediction = TypeVar("Prediction")


class HeadConfig(PartConfig):
    """Base class of head configs."""


class LearnsMasks(ABC):
    """A mixin for configs of heads that can be trained with instance masks."""

    @property
    @abstractmethod
    def mask_format(self) -> MaskFormat | None:
        """The format in which the ground truth must have masks; None if the head needs no masks."""


def required_mask_format(config: HeadConfig) -> MaskFormat | None:
    """Return the mask format that a head with this config needs in the ground truth; None if it needs no masks."""
    return config.mask_format if isinstance(config, LearnsMasks) else None


class LearnsKeypoints(ABC):
    """A mixin for configs of heads that can be trained with keypoints."""

    @property
    @abstractmethod
    def keypoint_names(self) -> tuple[str, ...] | None:
        """The keypoints that the ground truth must have, in their order; None if the head needs no keypoints."""


def required_keypoints(config: HeadConfig) -> tuple[str, ...] | None:
    """Return the keypoints that a head with this config needs in the ground truth; None if it needs none."""
    return config.keypoint_names if isinstance(config, LearnsKeypoints) else None


class Head(nn.Module, ABC, Generic[Target, Prediction]):
    """Base class of heads, which compute losses and predictions from named feature maps.

    The type of the result never depends on ``self.training``: ``loss`` and ``predict`` are separate methods.
    """

    task: ClassVar[str]
    """The name of the task in ``vertebra.engine.TASKS`` that scores, writes and draws the head's predictions."""

    target_task: ClassVar[str] = ""
    """The task of the data sets that the head is trained on, if it differs from ``task``: a head that counts objects is
    trained on data for ``detection``."""

    predicted_tasks: ClassVar[tuple[str, ...]] = ()
    """The tasks of a head whose predictions are dicts with one entry per task, the main task first; empty for a head
    with a single task. The data set must have ground truth for each of them, and the ``num_classes`` of the head is a
    dict by task."""

    dense_parts: Sequence[str] = ("",)
    """The submodules to compile: their ``forward`` has no data-dependent control flow. "" is the head itself. Together
    they must contain all parameters of the head."""

    progress: float = 1.0
    """The fraction of the training steps that are completed, for losses that change during training. The training loop
    sets it before every step with :meth:`vertebra.Model.set_progress`; outside of training it is 1."""

    def targets(self) -> str:
        """Return the task of the data sets that the head is trained on."""
        return self.target_task or self.task

    @abstractmethod
    def loss(self, features: Features, images: Images, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute the losses and metrics of a batch; ``targets`` has one target per image.

        A value whose name begins with ``loss_`` is a scalar to minimize; any other value is a metric, a detached 1-D
        tensor whose mean is logged (see :mod:`vertebra.ops.losses`).
        """

    @abstractmethod
    def predict(self, features: Features, images: Images) -> list[Prediction]:
        """Return one prediction per image, in pixel coordinates of the given images."""


class PredictsTensors(ABC, Generic[Prediction]):
    """A mixin for heads that compute their predictions as named tensors first, which is what an exported file returns.

    ``predict`` is ``assemble(predict_tensors(features, images), images)``.
    """

    @abstractmethod
    def predict_tensors(self, features: Features, images: Images) -> dict[str, Tensor]:
        """Compute the tensors that determine the predictions of all images, by names that become names of outputs.

        In a graph, the shapes depend only on the config and on the shapes of the arguments.
        """

    @abstractmethod
    def assemble(self, tensors: Mapping[str, Tensor], images: Images) -> list[Prediction]:
        """Return the prediction of each image from the tensors; only the sizes of ``images`` are read."""


def require_tensors(head: Head) -> PredictsTensors:
    """Return a head that predicts tensors; raise UsageError if it does not."""
    if not isinstance(head, PredictsTensors):
        raise UsageError(
            f"the head {type(head).__name__} does not say which tensors its predictions are made of",
            "let it inherit from vertebra.heads.PredictsTensors, and define predict_tensors and assemble",
        )
    return head


class DetectionHead(Head[Instances, Detections]):
    """Base class of heads that detect objects, whose losses are computed for all images together."""

    task: ClassVar[str] = "detection"

    num_classes: int

    def loss(self, features: Features, images: Images, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Check and pad the targets, and return the losses and metrics from :meth:`padded_loss`."""
        check_targets(targets, images, self.num_classes)
        return self.padded_loss(features, images, pad_targets(targets, images))

    @abstractmethod
    def padded_loss(self, features: Features, images: Images, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute losses and metrics as in :meth:`loss`, from targets that are checked and padded.

        Compile this method rather than ``loss``: in a compiled graph, all shapes depend only on the config and on the
        shapes of the arguments.
        """


HEADS: Registry[Head] = Registry("head")
"""The registry of heads; each entry is a class that builds a head from ``(feature_info, num_classes, config)``."""


def task_of_head(name: str) -> str:
    """Return the task of the head registered as ``name``."""
    return _head_class(name).task


def target_task_of_head(name: str) -> str:
    """Return the task of the data sets that the head registered as ``name`` is trained on."""
    head = _head_class(name)
    return head.target_task or head.task


def predicted_tasks_of_head(name: str) -> tuple[str, ...]:
    """Return the ``predicted_tasks`` of the head registered as ``name``; empty for a head with a single task."""
    return _head_class(name).predicted_tasks


def _head_class(name: str) -> type[Head]:
    """Return the class registered as ``name``; raise UsageError if it is a function, which has no ``task``."""
    build = HEADS[name].build
    if not (isinstance(build, type) and issubclass(build, Head)):
        raise UsageError(
            f"the head {name!r} is registered as {build!r}, which has no task",
            "register a subclass of vertebra.Head that sets task",
        )
    return build


def require_levels(reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str]) -> None:
    """Raise ValueError if ``feature_info`` lacks one of ``levels``; ``reader`` names the part that reads them."""
    missing = [level for level in levels if level not in feature_info]
    if not missing:
        return
    fix = "choose other levels in the head's config, or request more levels from the backbone"
    if any(level.startswith("p") for level in missing):
        fix = "add a neck that computes them, such as 'fpn'"
    raise ValueError(f"{reader} reads levels {tuple(levels)}, but the input has {tuple(feature_info)}: {fix}")


def require_equal_channels(reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str]) -> int:
    """Return the number of channels of ``levels``; raise ValueError if they differ."""
    channels = [feature_info[level].channels for level in levels]
    if len(set(channels)) > 1:
        raise ValueError(
            f"{reader} needs the same channels on all levels; {tuple(levels)} have {channels}: use a neck, "
            "such as 'fpn'"
        )
    return channels[0]


def require_classes(reader: str, num_classes: int) -> None:
    """Raise ValueError if a head would have no class."""
    if num_classes < 1:
        raise ValueError(f"{reader} needs at least one class; got num_classes={num_classes}")
