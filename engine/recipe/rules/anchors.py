"""The rule for anchors: stock anchors are kept unless they reach too few boxes."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ....backbones import BACKBONES
from ....data import ResizeConfig
from ....heads import RCNNConfig, RetinaNetConfig
from ....heads.dense import PyramidLevels
from ....models import ModelConfig
from ....necks import NECKS
from ....ops import cell_anchors, pairwise_iou
from ...config import ExperimentConfig
from ..choices import Choice
from ..facts import DataFacts
from .schedule import FEW_STEPS

IOU = 0.5
"""A box is reached if an anchor at its center has at least this IoU with it."""
ENOUGH = 0.8
"""The fraction of the boxes that must be reached. On COCO photos, for which they were made, stock anchors reach 83 to
86 % at 800 pixels; on BCCD 94 % at 240 and 100 % at 480, on VOC2012 90 to 97 % at 240 to 800."""
ENOUGH_IF_SHORT = 0.4
"""The fraction that the anchors of an R-CNN must reach if it is trained for fewer than ``FEW_STEPS`` steps."""
GAIN = 0.05
"""Other anchors must reach at least this fraction more."""
MOST_BOXES = 2000
"""The number of boxes, evenly spaced over all, by which anchors are judged."""
FACTORS = tuple(2 ** (exponent / 4) for exponent in range(-12, 13))
SPREADS = (1.5, 2.0, 3.0, 4.0)
TILTS = (0.25, 0.5, 2**-0.5, 1.0, 2**0.5, 2.0, 4.0)

Sizes = tuple[tuple[float, ...], ...]
Ratios = tuple[float, ...]


def choose_anchors(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose anchors that reach more boxes if the configured ones reach too few of them.

    In a short training of an R-CNN fewer suffice; an object that no anchor reaches is learned from its best anchor.
    After 75 steps on cars of CamVid, AP50 was 22.9 with stock anchors, which reach 49 % of the boxes, 10.8 with those
    that this rule would choose, which reach 99 %, and 7.7 with their sizes alone. Longer trainings were not compared.

    All sizes are multiplied by one factor, and the ratios are (1 / spread, 1, spread) times one tilt. The combination
    that reaches most boxes is taken; of equals, that with the highest mean IoU. The number of anchors per cell stays,
    so that pretrained weights of the RPN fit.
    """
    head, transform, enough = config.model.head, config.val.transform, ENOUGH
    if not len(facts.boxes) or not isinstance(transform, ResizeConfig):
        return
    if isinstance(head, RCNNConfig):
        path, part = "model.head.rpn", head.rpn
        enough = ENOUGH_IF_SHORT if config.recipe.schedule.steps < FEW_STEPS else ENOUGH
    elif isinstance(head, RetinaNetConfig):
        path, part = "model.head", head
    else:
        return
    boxes = centered(facts.resized_boxes(max(transform.short_sides), transform.long_side))
    sizes = part.sizes_for(strides_of_levels(config.model, part.levels))
    ratios = part.anchor_ratios
    reached = reach(boxes, sizes, ratios)[0]
    best_sizes, best_ratios = sizes, ratios
    if reached < enough and len(ratios) == 3:
        best_sizes, best_ratios = max(candidates(sizes), key=lambda candidate: reach(boxes, *candidate))
    gained = reach(boxes, best_sizes, best_ratios)[0]
    if gained < reached + GAIN:
        text = f"the anchors reach {reached:.0%} of the boxes at IoU {IOU}"
        text += "" if reached >= enough else ", and none of the sizes and ratios that were tried reach many more"
        yield Choice(f"{path}.anchor_sizes", part.anchor_sizes, text)
        return
    reason = f"the default reaches {reached:.0%} of the boxes at IoU {IOU}, these {gained:.0%}; the number is the same"
    yield Choice(f"{path}.anchor_sizes", best_sizes, reason)
    yield Choice(f"{path}.anchor_ratios", best_ratios, "they belong to these sizes")


def candidates(sizes: Sequence[Sequence[float]]) -> Iterable[tuple[Sizes, Ratios]]:
    """Yield the sizes and ratios that are tried."""
    for factor, spread, tilt in itertools.product(FACTORS, SPREADS, TILTS):
        scaled = tuple(tuple(round(size * factor, 1) for size in level) for level in sizes)
        yield scaled, tuple(round(tilt * ratio, 3) for ratio in (1 / spread, 1.0, spread))


def centered(sides: np.ndarray) -> Float[Tensor, "p 4"]:
    """Return boxes around the origin with these (width, height), at most ``MOST_BOXES``, evenly spaced over all."""
    chosen = np.unique(np.linspace(0, len(sides) - 1, MOST_BOXES).round().astype(np.int64))
    half = torch.from_numpy(np.maximum(sides[chosen], 1e-3) / 2).float()
    return torch.cat([-half, half], dim=1)


def reach(
    boxes: Float[Tensor, "p 4"], sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> tuple[float, float]:
    """Return the fraction of the boxes that anchors at their centers reach, and the mean IoU of the best anchors."""
    anchors = cell_anchors([size for level in sizes for size in level], ratios)
    best = pairwise_iou(boxes, anchors).max(dim=1).values
    return (best >= IOU).float().mean().item(), best.mean().item()


def strides_of_levels(model: ModelConfig, levels: Sequence[str] | None) -> tuple[int, ...]:
    """Return the strides of the levels that a dense head of a model reads; None takes every ``p`` level."""
    info = BACKBONES.build(model.backbone).feature_info
    info = info | NECKS.build(model.neck, info).feature_info
    return PyramidLevels.choose("the recipe", info, levels).strides
