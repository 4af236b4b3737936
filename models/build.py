"""A model from a config."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import model_validator

from ..backbones import BACKBONES, BackboneConfig, weights_input
from ..heads import HEADS, HeadConfig, target_task_of_head
from ..necks import NECKS
from ..structures import Config, InputConfig, PartConfig
from .model import Model
from .preprocess import Preprocess


class ModelConfig(Config):
    """The parts of a model, each with its own config; channels, strides and class counts follow from them."""

    input: InputConfig | None = None
    """None: as the backbone's weights were trained. A run's own config says which that was."""
    backbone: Annotated[BackboneConfig, *BACKBONES.field()]
    weights: str | None = None
    """Pretrained weights that the backbone starts from; see :func:`vertebra.backbones.load_backbone_weights`."""
    start_from: str | None = None
    """A run folder or checkpoint whose whole model this one starts from, whatever its classes; see
    :func:`vertebra.models.transfer_weights`."""
    neck: Annotated[PartConfig, *NECKS.field()]
    head: Annotated[HeadConfig, *HEADS.field()]

    @model_validator(mode="after")
    def _check_starting_weights(self) -> "ModelConfig":
        if self.start_from is not None and self.weights is not None:
            raise ValueError("start_from gives the backbone its weights too: set weights to null")
        return self


def resolve_input(config: ModelConfig) -> ModelConfig:
    """Return the config with the input written out that its weights were trained on."""
    if config.input is not None:
        return config
    return config.replace(input=weights_input(config.backbone, config.weights))


def build_model(config: ModelConfig, class_names: Sequence[str] | Mapping[str, Sequence[str]]) -> Model:
    """Build the parts on one another, for these classes; random weights. The classes of several heads come by task."""
    backbone = BACKBONES.build(config.backbone)
    preprocess = Preprocess(config.input or weights_input(config.backbone, config.weights))
    neck = NECKS.build(config.neck, backbone.feature_info)
    task = target_task_of_head(config.head.name)
    names_by_task = class_names if isinstance(class_names, Mapping) else {task: class_names}
    num_classes: int | dict[str, int] = {task: len(names) for task, names in names_by_task.items()}
    if task in names_by_task:
        names_by_task = {task: names_by_task[task]}
        num_classes = len(names_by_task[task])
    head = HEADS.build(config.head, backbone.feature_info | neck.feature_info, num_classes)
    return Model(backbone, neck, head, preprocess, names_by_task)
