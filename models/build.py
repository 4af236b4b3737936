"""Building a model from a config."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import model_validator

from ..backbones import BACKBONES, BackboneConfig, weights_input
from ..heads import HEADS, HeadConfig, predicted_tasks_of_head, target_task_of_head
from ..necks import NECKS
from ..structures import Config, InputConfig, PartConfig
from .model import Model
from .preprocess import Preprocess


class ModelConfig(Config):
    """The parts of a model, each with its config. Channels and strides are passed on from part to part."""

    input: InputConfig | None = None
    """Pixel normalization. None: as the backbone's weights were trained; a run stores the resolved value."""
    backbone: Annotated[BackboneConfig, *BACKBONES.field()]
    weights: str | None = None
    """Pretrained weights of the backbone: a file or a source such as ``torchvision/IMAGENET1K_V2``; see
    :func:`vertebra.backbones.load_backbone_weights`. None: random weights."""
    start_from: str | None = None
    """A trained model from which to initialize the complete model, which may have other classes: a run folder, a
    checkpoint, or the name of a published model such as ``torchvision/fasterrcnn_resnet50_fpn``; see
    :func:`vertebra.inference.open_model` and :func:`vertebra.models.transfer_weights`."""
    start_from_like: str | None = None
    """If ``start_from`` is a file of weights: the published model that has its tensor names and conventions."""
    neck: Annotated[PartConfig, *NECKS.field()]
    head: Annotated[HeadConfig, *HEADS.field()]

    @model_validator(mode="after")
    def _check_starting_weights(self) -> "ModelConfig":
        if self.start_from is not None and self.weights is not None:
            raise ValueError("start_from also initializes the backbone: set weights to null")
        if self.start_from_like is not None and self.start_from is None:
            raise ValueError("start_from_like describes the file start_from: set start_from, or leave it out")
        return self


def resolve_input(config: ModelConfig) -> ModelConfig:
    """Return the config with ``input`` set; None is replaced by the pixel normalization of its pretrained weights."""
    if config.input is not None:
        return config
    return config.replace(input=weights_input(config.backbone, config.weights))


def build_model(config: ModelConfig, class_names: Sequence[str] | Mapping[str, Sequence[str]]) -> Model:
    """Build a model with random weights.

    ``class_names`` holds the names of the classes; for a head with several tasks it is a dict by task.
    """
    backbone = BACKBONES.build(config.backbone)
    preprocess = Preprocess(config.input or weights_input(config.backbone, config.weights))
    neck = NECKS.build(config.neck, backbone.feature_info)
    task = target_task_of_head(config.head.name)
    names_by_task = class_names if isinstance(class_names, Mapping) else {task: class_names}
    num_classes: int | dict[str, int] = {task: len(names) for task, names in names_by_task.items()}
    if task in names_by_task and not predicted_tasks_of_head(config.head.name):
        names_by_task = {task: names_by_task[task]}
        num_classes = len(names_by_task[task])
    head = HEADS.build(config.head, backbone.feature_info | neck.feature_info, num_classes)
    model = Model(backbone, neck, head, preprocess, names_by_task)
    model.config = config
    return model
