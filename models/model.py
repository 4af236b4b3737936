"""The one model: every detector, segmenter and classifier is this class with other parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..heads import Head
from ..necks import Neck
from ..structures import Features, Images
from .preprocess import Preprocess


class Model(nn.Module):
    """Images -> losses (``forward``) or predictions (``predict``), in training and evaluation mode alike."""

    class_names: Mapping[str, tuple[str, ...]]
    """The class names of each task: label ``i`` is ``class_names["detection"][i]``. Empty if they are not known."""

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: Head,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    ) -> None:
        """Join the parts; ``preprocess`` None takes the input that the backbone's weights want."""
        super().__init__()
        if not isinstance(class_names, Mapping):  # those of the head's one task
            class_names = {head.targets(): class_names} if class_names else {}
        self.class_names = {task: tuple(names) for task, names in class_names.items()}
        self.preprocess = preprocess or Preprocess(backbone.input)
        self.backbone = backbone
        self.neck = neck
        self.head = head

    @property
    def size_divisor(self) -> int:
        """Images are padded to a multiple of this: the backbone's coarsest stride, in pixels."""
        return max(info.stride for info in self.backbone.feature_info.values())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def compile_dense(self) -> None:
        """Let torch.compile make one program of each dense part; names and results stay as they are."""
        for part in (self.backbone, self.neck, *map(self.head.get_submodule, self.head.dense_parts)):
            part.compile()

    def features(self, images: Images) -> Features:
        """Compute the levels of the backbone and the neck by name; a head reads those it wants."""
        levels = self.backbone(self.preprocess(images))
        return levels | self.neck(levels)

    def forward(self, images: Images, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the losses and the numbers to watch (:mod:`vertebra.ops.losses`) from one target per image."""
        return self.head.loss(self.features(images), images, targets)

    @torch.no_grad()
    def predict(self, images: Images) -> list[Any]:
        """Predict each image, in the frame of the images given. Call ``eval()`` first, as for any module."""
        return self.head.predict(self.features(images), images)
