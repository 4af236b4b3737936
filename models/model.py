"""The model class: detectors, segmentation models and classifiers differ only in their parts."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..heads import Head
from ..necks import Neck
from ..structures import Features, Images
from .preprocess import Preprocess

if TYPE_CHECKING:
    from .build import ModelConfig


@runtime_checkable
class PredictingModel(Protocol):
    """A model that predicts images, which is all that prediction and evaluation need: a :class:`Model`, for example."""

    head: Head
    class_names: Mapping[str, tuple[str, ...]]
    training: bool

    @property
    def size_divisor(self) -> int:
        """The number of pixels to a multiple of which images are padded."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that images are moved to."""
        ...

    def predict(self, images: Images) -> list[Any]:
        """Return one prediction per image, in pixel coordinates of the given images."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Set training mode, or evaluation mode for False."""
        ...


class Model(nn.Module):
    """A model of a backbone, a neck and a head.

    ``forward`` returns losses and ``predict`` predictions, both in training and in evaluation mode.
    """

    class_names: Mapping[str, tuple[str, ...]]
    """The class names of each task: label ``i`` is ``class_names["detection"][i]``. Empty if they are not known."""

    config: "ModelConfig | None" = None
    """The config that the model was built from; None if it was built from parts."""

    autocast_dtype: torch.dtype | None = None
    """The dtype in which ``features`` and ``predict`` run under torch's autocast. None: that of the caller, if any."""

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: Head,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    ) -> None:
        """Combine the parts; ``preprocess=None`` uses the pixel normalization of the backbone's weights."""
        super().__init__()
        for part, kind in ((backbone, Backbone), (neck, Neck), (head, Head)):
            if not isinstance(part, kind):
                raise TypeError(
                    f"a model needs a {kind.__name__}, got {type(part).__name__}: build the part of a config with its "
                    "registry, such as NECKS.build(config, backbone.feature_info)"
                )
        if not isinstance(class_names, Mapping):  # the head has a single task
            class_names = {head.targets(): class_names} if class_names else {}
        self.class_names = {task: tuple(names) for task, names in class_names.items()}
        self.preprocess = preprocess or Preprocess(backbone.input)
        self.backbone = backbone
        self.neck = neck
        self.head = head

    @property
    def size_divisor(self) -> int:
        """The coarsest stride of the backbone in pixels; pad images to a multiple of it."""
        return max(info.stride for info in self.backbone.feature_info.values())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def dense_parts(self) -> dict[str, nn.Module]:
        """Return the parts whose ``forward`` has no data-dependent control flow, by name: these can be compiled."""
        names = [f"head.{part}".rstrip(".") for part in self.head.dense_parts]
        return {name: self.get_submodule(name) for name in ("backbone", "neck", *names)}

    def compile_dense(self) -> None:
        """Compile the backbone, the neck and the dense parts of the head in place; parameter names do not change."""
        for part in self.dense_parts().values():
            part.compile()

    def set_progress(self, fraction: float) -> None:
        """Set ``progress`` of all heads: the fraction of the training steps that are completed, from 0 to 1."""
        for module in self.head.modules():
            if isinstance(module, Head):
                module.progress = fraction

    def features(self, images: Images) -> Features:
        """Compute the feature maps of the backbone and the neck, by level name."""
        with self.autocast():
            levels = self.backbone(self.preprocess(images))
            return levels | self.neck(levels)

    def forward(self, images: Images, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the losses and metrics (see :mod:`vertebra.ops.losses`); ``targets`` has one target per image."""
        return self.head.loss(self.features(images), images, targets)

    @torch.no_grad()
    def predict(self, images: Images) -> list[Any]:
        """Return one prediction per image, in pixel coordinates of the given images. Call ``eval()`` first."""
        with self.autocast():
            return self.head.predict(self.features(images), images)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return torch's autocast for ``autocast_dtype``; if that is None, a context that changes nothing."""
        dtype = self.autocast_dtype
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)
