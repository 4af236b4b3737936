"""Floor 6: training, evaluation, checkpoints."""

from .checkpoints.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from .checkpoints.restore import load_checkpoint_model, load_model, load_weights
from .checkpoints.series import checkpoint_paths
from .config import (
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    SplitConfig,
    override,
    parse_config,
)
from .distributed.context import DistributedContext, init_distributed
from .drawing import blend_masks, draw_boxes, draw_classes, draw_lines, write_image
from .evaluate_run import CheckpointScores, evaluate_checkpoint, evaluate_run
from .logging.comparisons import draw_comparisons
from .loop.evaluate import collect_results, evaluate, score_results, scores_as_json
from .loop.step import TrainingState, seed_step, train_step
from .loop.train import train
from .loop.validation_loss import validation_losses
from .optim.optimizers import AdamWConfig, SGDConfig, build_optimizer, set_learning_rate
from .optim.schedule import ScheduleConfig
from .predict import Predictor
from .tasks import TASKS, ClassificationTask, Detection, MultiTask, Semantic, Task, pick_task, require_targets

__all__ = [
    "TASKS",
    "AdamWConfig",
    "Checkpoint",
    "CheckpointScores",
    "ClassificationTask",
    "Detection",
    "DistributedContext",
    "EvaluationConfig",
    "ExperimentConfig",
    "MultiTask",
    "Predictor",
    "RecipeConfig",
    "RunConfig",
    "SGDConfig",
    "ScheduleConfig",
    "Semantic",
    "SplitConfig",
    "Task",
    "TrainingState",
    "blend_masks",
    "build_optimizer",
    "checkpoint_paths",
    "collect_results",
    "draw_boxes",
    "draw_classes",
    "draw_comparisons",
    "draw_lines",
    "evaluate",
    "evaluate_checkpoint",
    "evaluate_run",
    "init_distributed",
    "load_checkpoint_model",
    "load_model",
    "load_weights",
    "open_checkpoint",
    "override",
    "parse_config",
    "pick_task",
    "require_targets",
    "save_checkpoint",
    "score_results",
    "scores_as_json",
    "seed_step",
    "set_learning_rate",
    "train",
    "train_step",
    "validation_losses",
    "write_image",
]
