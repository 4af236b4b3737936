"""Exported models for tests, whose graph is run without a file, and tiny models with every kind of output."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vertebra.backbones import ResNetConfig
from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RPNConfig
from vertebra.inference import InferenceConfig
from vertebra.inference.export.description import Description
from vertebra.inference.export.exported_model import ExportedModel
from vertebra.inference.export.graph import ExportGraph, is_finished
from vertebra.inference.export.sessions import Session
from vertebra.models import Model, ModelConfig, build_model
from vertebra.necks import FPNConfig
from vertebra.ops import fixed_shapes
from vertebra.structures import ImagePreprocessing


class EagerSession(Session):
    """The graph of a model, run operation by operation."""

    def __init__(self, model: Model, resize: ImagePreprocessing | None = None, **facts: Any) -> None:
        self.graph, self.calls = ExportGraph(model, resize), []
        channels = len(model.preprocess.config.mean)
        images = torch.zeros(1, channels, 64, 96, dtype=torch.uint8)
        outputs = tuple(self._compute(*((images,) if resize else (images, torch.tensor([[64, 96]])))))
        defaults = {"size": None, "batch": None, "half": False, "classes": {}, "inference": None, "origin": None}
        self.description = Description(
            task=model.head.task,
            channels=channels,
            resizes=resize is not None,
            size_divisor=model.size_divisor,
            least_side=1,
            outputs=outputs,
            tensors=tuple(name for name in outputs if not is_finished(name)),
            versions={},
            **defaults | facts,
        )

    def run(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        self.calls.append(tuple(inputs["images"].shape))
        outputs = self._compute(*inputs.values())
        return {name: outputs[name] for name in names}

    @torch.no_grad()
    def _compute(self, *inputs: Tensor) -> dict[str, Tensor]:
        with fixed_shapes():
            return self.graph(*inputs)


def exported(model: Model, resize: ImagePreprocessing | None = None, **facts: Any) -> ExportedModel:
    """Return a model whose graph is run in the place of a file."""
    return ExportedModel(EagerSession(model, resize, **facts), model.head, resize)


def spread_model(head: Any = None, classes: Any = ("a", "b", "c"), neck: Any = None) -> Model:
    """Return a model with random weights whose scores differ enough that rounding errors do not reorder them."""
    torch.manual_seed(0)
    rcnn = RCNNConfig(
        rpn=RPNConfig(pre_nms=(60, 60), post_nms=(30, 30)),
        box=BoxBranchConfig(fc=(32,), max_detections=20, levels=("p2", "p3", "p4")),
        mask=MaskBranchConfig(convolutions=(16,), levels=("p2", "p3", "p4")),
    )
    backbone = ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4"))
    config = ModelConfig(backbone=backbone, neck=neck or FPNConfig(channels=16), head=head or rcnn)
    model = build_model(config, classes).eval().requires_grad_(False)
    for name, parameter in model.head.named_parameters():
        if name.endswith(("objectness.weight", "class_logits.weight", "logits.weight")):
            parameter.mul_(30)
    return model


def inference_config(model: Model, preprocessing: ImagePreprocessing | None) -> InferenceConfig:
    """Return the inference config of a model that was built from a config."""
    assert model.config is not None, "the model was built from a config"
    return InferenceConfig(model=model.config, preprocessing=preprocessing)
