"""Floor 6: training, evaluation, checkpoints."""

from .checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from .checkpoint_series import checkpoint_paths
from .config import ExperimentConfig, SplitConfig, override, parse_config
from .drawing import blend_masks, draw_boxes, draw_classes, draw_lines, write_image
from .evaluate import collect_results, evaluate, pick_device, score_results, scores_as_json, write_json
from .optimizers import AdamWConfig, SGDConfig, build_optimizer, set_learning_rate
from .pictures import draw_comparisons
from .predict import Predictor
from .processes import Processes, join_processes
from .restore import load_checkpoint_model, load_model, load_weights
from .schedule import ScheduleConfig
from .step import TrainingState, seed_step, train_step
from .tasks import TASKS, Detection, Semantic, Several, Task, WholeImage, pick_task, require_truth
from .train import train
from .validation_loss import validation_losses

__all__ = [
    "TASKS",
    "AdamWConfig",
    "Checkpoint",
    "Detection",
    "ExperimentConfig",
    "Predictor",
    "Processes",
    "SGDConfig",
    "ScheduleConfig",
    "Semantic",
    "Several",
    "SplitConfig",
    "Task",
    "TrainingState",
    "WholeImage",
    "blend_masks",
    "build_optimizer",
    "checkpoint_paths",
    "collect_results",
    "draw_boxes",
    "draw_classes",
    "draw_comparisons",
    "draw_lines",
    "evaluate",
    "join_processes",
    "load_checkpoint_model",
    "load_model",
    "load_weights",
    "open_checkpoint",
    "override",
    "parse_config",
    "pick_device",
    "pick_task",
    "require_truth",
    "save_checkpoint",
    "score_results",
    "scores_as_json",
    "seed_step",
    "set_learning_rate",
    "train",
    "train_step",
    "validation_losses",
    "write_image",
    "write_json",
]
