"""An estimate of the memory and the time of a training, from the shapes of its tensors alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ....data import ResizeConfig, ScaledCropConfig
from ....models import build_model
from ...config import ExperimentConfig
from ..findings import Finding
from ..splits import ExaminedData, Split

SUSTAINED = 20e12
"""Floating-point operations per second that a training sustains on a common data center GPU, for the estimate of the
time; an A100 sustains 30 to 60 in half precision and 10 to 15 in float32."""
BYTES_PER_WEIGHT = 16
"""Weight, gradient and two moments of the optimizer in float32."""
BACKWARD = 3
"""The operations of a forward and a backward pass, as multiples of a forward pass."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The cost of the backbone and the neck of a model in training, which is most of the whole."""

    operations: int
    """Floating-point operations of a forward pass of one image."""
    saved_bytes: int
    """Bytes of the tensors of one image that are kept for the backward pass, in float32."""
    parameters: int
    """The number of weights of the whole model."""


def measure_cost(model: nn.Module, trunk: Callable[[Tensor], Any], size: tuple[int, int]) -> TrainingCost:
    """Return the cost of training a model on images of ``size`` (height, width); its tensors need no memory.

    ``trunk`` computes the feature maps of images, by the model's backbone and neck.

    The model must be on torch's meta device, which computes shapes only.
    """
    saved: dict[int, Tensor] = {}
    weights = {id(parameter) for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    pixels = torch.zeros(1, 3, *size, device="meta")
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trunk(pixels)
    return TrainingCost(
        counter.get_total_flops(),
        sum(tensor.untyped_storage().nbytes() for tensor in saved.values()),
        sum(parameter.numel() for parameter in model.parameters()),
    )


def estimate_training(data: ExaminedData) -> Iterable[Finding]:
    """Estimate the memory of a training step, the time of the training, and the pixels that it reads."""
    experiment, train = data.experiment, data.split("train")
    if experiment is None or train is None or train.sizes is None or not train.class_names:
        return
    size = _typical_size(experiment, train)
    try:
        with torch.device("meta"):
            model = build_model(experiment.model, {train.dataset.task: train.class_names})
        cost = measure_cost(model.train(), lambda pixels: model.neck(model.backbone(pixels)), size)
    except (NotImplementedError, RuntimeError) as error:  # a part that reads values, which the meta device lacks
        what = f"the cost of the training cannot be estimated from shapes alone: {error}".splitlines()[0]
        yield Finding("cost-not-estimated", "note", "train", what, "none needed")
        return
    recipe = experiment.recipe
    images = recipe.batch_size * recipe.schedule.steps
    micro_batch = -(-recipe.batch_size // recipe.accumulate)
    memory = cost.saved_bytes * micro_batch + BYTES_PER_WEIGHT * cost.parameters
    hours = BACKWARD * cost.operations * images / SUSTAINED / 3600
    epoch = float(train.sizes.prod(axis=1).sum()) * 3
    what = (
        f"{images / len(train.dataset):.1f} epochs of images of about {size[1]} x {size[0]}; a step of "
        f"{recipe.batch_size} needs at least {memory / 1e9:.1f} GB in float32, the training {hours:.2g} hours of a GPU "
        f"that sustains {SUSTAINED / 1e12:.0f} TFLOP/s; an epoch decodes {epoch / 1e9:.2g} GB of pixels"
    )
    fix = "smaller images, recipe.accumulate or half precision save memory; the head is not counted"
    yield Finding("training-cost", "note", train.name, what, fix)


def _typical_size(experiment: ExperimentConfig, train: Split) -> tuple[int, int]:
    """Return the median (height, width) of the training images as the model sees them, as multiples of 32."""
    assert train.sizes is not None, "checked by the caller"
    height, width = np.median(train.sizes, axis=0).tolist()
    transform = experiment.train.transform
    if isinstance(transform, ResizeConfig):
        scale = min(max(transform.short_sides) / min(height, width), transform.long_side / max(height, width))
        height, width = height * scale, width * scale
    elif isinstance(transform, ScaledCropConfig):
        crop = transform.size
        height, width = (crop, crop) if isinstance(crop, int) else crop
    return max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)
