"""Training and evaluation: configs, optimizers, the loops, distributed runs, checkpoints and tasks (layer 7)."""

from .checkpoints import save_checkpoint
from .config import (
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    SplitConfig,
    experiment_config,
    parse_config,
)
from .distributed.context import DistributedContext, init_distributed
from .evaluate_run import ModelScores, config_for_data, evaluate_run, evaluate_trained, stored_config
from .export_scores import compare_scores
from .logging.comparisons import draw_comparisons
from .loop.evaluate import collect_results, evaluate, score_results, validation_losses
from .loop.step import TrainingState, seed_step, train_step
from .loop.train import train
from .optim.optimizers import AdamWConfig, SGDConfig, build_optimizer, set_learning_rate
from .optim.schedule import ScheduleConfig
from .overrides import override
from .prediction import PredictionOptions, PredictionSummary, predict_files, require_unused_output
from .recipe import Recipe, RecipeRequest, UserChanges, announce_recipe, make_recipe, train_run
from .tasks import (
    TASKS,
    ClassificationTask,
    DetectionTask,
    MultiTask,
    PanopticTask,
    Rows,
    SemanticTask,
    Task,
    pick_task,
    require_targets,
    results_files,
    write_results_files,
)

__all__ = [
    "TASKS",
    "AdamWConfig",
    "ClassificationTask",
    "DetectionTask",
    "DistributedContext",
    "EvaluationConfig",
    "ExperimentConfig",
    "ModelScores",
    "MultiTask",
    "PanopticTask",
    "PredictionOptions",
    "PredictionSummary",
    "Recipe",
    "RecipeConfig",
    "RecipeRequest",
    "Rows",
    "RunConfig",
    "SGDConfig",
    "ScheduleConfig",
    "SemanticTask",
    "SplitConfig",
    "Task",
    "TrainingState",
    "UserChanges",
    "announce_recipe",
    "build_optimizer",
    "collect_results",
    "compare_scores",
    "config_for_data",
    "draw_comparisons",
    "evaluate",
    "evaluate_run",
    "evaluate_trained",
    "experiment_config",
    "init_distributed",
    "make_recipe",
    "override",
    "parse_config",
    "pick_task",
    "predict_files",
    "require_targets",
    "require_unused_output",
    "results_files",
    "save_checkpoint",
    "score_results",
    "seed_step",
    "set_learning_rate",
    "stored_config",
    "train",
    "train_run",
    "train_step",
    "validation_losses",
    "write_results_files",
]
