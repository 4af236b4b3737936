"""Floor 6: training, evaluation, checkpoints."""

from .checkpoint import (
    Checkpoint,
    checkpoint_paths,
    load_checkpoint_model,
    load_model,
    load_weights,
    open_checkpoint,
    save_checkpoint,
)
from .config import ExperimentConfig, SplitConfig, override, parse_config
from .evaluate import collect_results, detect_batch, pick_device, score_results, scores_as_json, write_json
from .optimization import AdamWConfig, ScheduleConfig, SGDConfig, build_optimizer
from .pictures import confident, draw_boxes, draw_comparisons, write_image
from .predict import Predictor
from .train import seed_step, train, train_step

__all__ = [
    "AdamWConfig",
    "Checkpoint",
    "ExperimentConfig",
    "Predictor",
    "SGDConfig",
    "ScheduleConfig",
    "SplitConfig",
    "build_optimizer",
    "checkpoint_paths",
    "collect_results",
    "confident",
    "detect_batch",
    "draw_boxes",
    "draw_comparisons",
    "load_checkpoint_model",
    "load_model",
    "load_weights",
    "open_checkpoint",
    "override",
    "parse_config",
    "pick_device",
    "save_checkpoint",
    "score_results",
    "scores_as_json",
    "seed_step",
    "train",
    "train_step",
    "write_image",
    "write_json",
]
