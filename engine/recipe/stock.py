"""The experiments that recipes start from: the defaults that are shown, before the rules choose."""

from ...backbones import ResNetConfig
from ...data import DatasetPair, ResizeConfig, ScaledCropConfig, TransformConfig
from ...heads import RCNNConfig, target_task_of_head
from ...models import ModelConfig
from ...necks import FPNConfig
from ...structures import ImagePreprocessing, ShortSideResize, UsageError
from ..config import EvaluationConfig, ExperimentConfig, RecipeConfig, SplitConfig
from ..optim.optimizers import SGDConfig
from ..optim.schedule import ScheduleConfig

STOCK_MODEL = ModelConfig(
    backbone=ResNetConfig(name="resnet50", norm="frozen", freeze_at=2),
    weights="torchvision/IMAGENET1K_V2",
    neck=FPNConfig(),
    head=RCNNConfig(),
)
"""Faster R-CNN R50-FPN with ImageNet weights: the model if neither weights nor a config are given."""

RATES = {"rcnn": 0.02, "retinanet": 0.01, "fcos": 0.01, "yolox": 0.0025}
"""The published learning rates of heads for SGD and 16 images (detectron2; YOLOX: 0.01 for 64); other heads: 0.01."""
KNOWN_TASKS = ("detection", "semantic")
"""The tasks for which there are recipes."""


def stock_experiment(
    name: str, model: ModelConfig, datasets: DatasetPair, preprocessing: ImagePreprocessing | None
) -> ExperimentConfig:
    """Return a model's published training: detectron2's 1x schedule, or that of DeepLab on VOC for semantic heads.

    ``preprocessing`` is that of the model's weights, if it has any.
    """
    short, long = (800, 1333)
    if isinstance(preprocessing, ShortSideResize):
        short, long = preprocessing.short_side, preprocessing.long_side
    transform: TransformConfig = ResizeConfig(short_sides=(short,), long_side=long)
    schedule = ScheduleConfig(steps=90_000)
    if target_task_of_head(model.head.name) == "semantic":
        transform = ScaledCropConfig(size=(512, 512), scales=(0.5, 2.0), short_side=512)
        schedule = ScheduleConfig(steps=40_000, decay="poly", warmup_steps=0)
    return ExperimentConfig(
        name=name,
        model=model,
        train=SplitConfig(dataset=datasets.train, transform=transform),
        val=SplitConfig(dataset=datasets.val, transform=ResizeConfig(short_sides=(short,), long_side=long)),
        recipe=RecipeConfig(
            batch_size=16,
            optimizer=SGDConfig(lr=RATES.get(model.head.name, 0.01), lr_batch_size=16),
            schedule=schedule,
        ),
        evaluation=EvaluationConfig(every=5_000),
    )


def adapt_experiment(name: str, experiment: ExperimentConfig, datasets: DatasetPair) -> ExperimentConfig:
    """Return an experiment with other data and another name, whose learning rate follows the batch size.

    It has regular evaluations, so that a user may set ``patience`` alone.
    """
    recipe = experiment.recipe
    if recipe.optimizer.lr_batch_size is None:
        recipe = recipe.replace(optimizer={"lr_batch_size": recipe.batch_size})
    return experiment.replace(
        name=name,
        train={"dataset": datasets.train, "bad_data": "error"},
        val={"dataset": datasets.val, "bad_data": "error"},
        recipe=recipe,
        evaluation={"every": experiment.evaluation.every or recipe.schedule.steps},
        run={"expected_ranges": {}},
    )


def require_known_task(model: ModelConfig) -> str:
    """Return the task of the data that a model's head learns from; raise UsageError if there are no recipes for it."""
    task = target_task_of_head(model.head.name)
    if task not in KNOWN_TASKS:
        raise UsageError(
            f"the head {model.head.name!r} learns from data for {task}, but recipes are for "
            f"{' and '.join(KNOWN_TASKS)}",
            "write a config, and train it with vertebra train CONFIG",
        )
    return task
