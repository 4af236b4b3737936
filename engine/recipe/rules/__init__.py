"""The rules of a recipe, in the order in which they are applied: each sees the choices of those before it.

A new rule is a function and an entry here.
"""

from collections.abc import Callable, Iterable

from ...config import ExperimentConfig
from ..choices import Choice, Rule
from .anchors import choose_anchors
from .evaluation import choose_evaluations, save_checkpoints, stop_early
from .images import crop_class_maps, flip_images, jitter_colors, limit_long_side, resize_images, resize_training_images
from .losses import smooth_box_losses, widen_first_outputs
from .sampling import choose_repeat_threshold, repeat_rare_classes
from .schedule import (
    average_weights,
    begin_decay_after_warmup,
    choose_batch_size,
    choose_decay,
    choose_steps,
    choose_warmup,
    lower_rates_below,
    scale_learning_rate,
)
from .targets import need_classes_of_training, order_classes, read_keypoints, read_masks

TARGET_RULES: tuple[Callable[[ExperimentConfig], Iterable[Choice]], ...] = (read_masks, read_keypoints)
"""The rules that are applied before the data are opened."""

RULES: tuple[Rule, ...] = (
    choose_batch_size,
    choose_steps,
    scale_learning_rate,
    lower_rates_below,
    choose_warmup,
    choose_decay,
    begin_decay_after_warmup,
    average_weights,
    smooth_box_losses,
    widen_first_outputs,
    resize_images,
    limit_long_side,
    resize_training_images,
    crop_class_maps,
    flip_images,
    jitter_colors,
    choose_anchors,
    repeat_rare_classes,
    choose_repeat_threshold,
    choose_evaluations,
    stop_early,
    save_checkpoints,
)
"""The rules that depend on facts about the data."""

__all__ = ["RULES", "TARGET_RULES", "need_classes_of_training", "order_classes"]
