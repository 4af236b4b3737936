"""The config of an experiment: everything that a run depends on, as one typed and validated value."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, PositiveFloat, ValidationError, model_validator

from ..data import (
    DATASETS,
    MIXES,
    DatasetConfig,
    LoaderConfig,
    Policy,
    ResizeConfig,
    SamplingConfig,
    TransformConfig,
    require_enough_pixels,
)
from ..data.transforms import TRANSFORMS, as_preprocessing
from ..evaluation import Engine
from ..heads import MultiHeadConfig, task_of_head
from ..inference import AutoPrecision, Checkpoint, InferenceConfig, resolve_precision
from ..models import DetectionInference, ModelConfig, SemanticInference
from ..structures import Config, PartConfig, UsageError, usage_error_from_validation
from .optim.optimizers import OptimizerConfig
from .optim.schedule import ScheduleConfig


class SplitConfig(Config):
    """The data set of one split, and how its images are transformed, mixed and sampled."""

    dataset: Annotated[DatasetConfig, *DATASETS.field()]
    bad_data: Policy = "error"
    """The policy for invalid images and annotations: ``error`` stops, ``skip`` skips and counts them, but stops if most
    are invalid, and ``skip-any`` skips any number."""
    transform: Annotated[TransformConfig, *TRANSFORMS.field()] = ResizeConfig()
    mix: Annotated[PartConfig, *MIXES.field()] | None = None
    """How several transformed images are combined into one sample, such as mosaic; training split only."""
    sampling: SamplingConfig = SamplingConfig()
    """The selection of the images of an epoch and their grouping into batches; for the training split only."""

    @model_validator(mode="after")
    def _check_decoded_size(self) -> "SplitConfig":
        require_enough_pixels(self.dataset, self.transform)
        return self


class RecipeConfig(Config):
    """How the weights are trained. Every field of this group affects the results of a run."""

    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights, the order of the images, augmentation and dropout."""
    batch_size: int = Field(default=16, gt=0)
    """Images per step, summed over all processes."""
    accumulate: int = Field(default=1, gt=0)
    """Gradient accumulation: the number of micro-batches into which each process splits its images of a step, to save
    memory. Losses are normalized within each micro-batch."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    clip_norm: float | None = Field(default=None, gt=0)
    """Maximum total norm of the gradients; larger gradients are scaled down to it. None: no clipping."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average (EMA) of the weights, such as 0.9998. Evaluations and loaded models then
    use the averaged weights. None: no EMA."""
    precision: AutoPrecision = "fp32"
    """Numeric precision of training steps. ``auto`` is ``bf16`` on a device with units for it, otherwise ``fp32``; the
    run stores the choice. Evaluations run in ``fp32`` if this is ``fp32``, otherwise in ``tf32``."""
    channels_last: bool | Literal["auto"] = "auto"
    """Use the channels-last memory format for weights and feature maps. ``auto``: in half precision, where it is faster
    (docs/performance.md), but not with ``parallel="fsdp"``; the run stores the choice."""
    compile: bool = False
    """Compile the backbone, the neck and the dense parts of the head with torch.compile. The first steps, and the first
    batch of each new shape, take minutes."""
    deterministic: bool = False
    """Use deterministic kernels only, so that a run on a GPU is bit-reproducible, and predict one image at a time in
    evaluations, so that the batch size does not affect them. Training on a CPU is always deterministic."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Data parallelism over several processes: ``ddp`` keeps all weights on every process, ``fsdp`` (FSDP2) only a
    shard, for models that do not fit otherwise. Both write the same checkpoints."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "RecipeConfig":
        if self.parallel == "fsdp" and (self.precision == "fp16" or self.channels_last is True or self.compile):
            raise ValueError(
                "parallel='fsdp' needs precision fp32, tf32 or bf16, and channels_last and compile switched off"
            )
        return self

    def resolve(self, device: torch.device) -> "RecipeConfig":
        """Return the recipe with every ``auto`` replaced by what it stands for on a device."""
        precision, channels_last = resolve_precision(self.precision, device), self.channels_last
        if channels_last == "auto":
            channels_last = precision in ("bf16", "fp16") and self.parallel == "ddp"
        return self.replace(precision=precision, channels_last=channels_last)


class EvaluationConfig(Config):
    """How and when a run is evaluated on its validation split. May change when the run is resumed."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0: evaluate after the last step only."""
    batch_size: int = Field(default=1, gt=0)
    """Images per batch. Above 1, smaller images are padded to the largest in their batch, which slightly changes
    predictions near the borders: 0.3 box AP between batch sizes 1 and 4 on the quickstart."""
    losses: bool = False
    """Also compute the losses of the validation images, in a second pass over them."""
    patience: int | None = Field(default=None, gt=0)
    """Early stopping: end the run after this many consecutive evaluations without improvement. None: never."""
    patience_for: Literal["score", "loss"] = "score"
    """The quantity that must improve for ``patience``: the main score, or the sum of the validation losses."""
    engine: Engine = "hotcoco"
    """Library that computes the COCO metrics; both give identical numbers."""
    max_detections: int = Field(default=100, gt=10)
    """The number of best detections of an image and class that the COCO metrics of boxes and masks take into account;
    COCO's is 100. More than 100 also need ``model.head.box.max_detections``, the number that a head predicts."""
    boundary: bool = True
    """Also compute boundary AP (2103.16562) where mask AP is computed."""
    keypoint_sigmas: dict[str, PositiveFloat] = Field(default={})
    """The OKS sigma of keypoints by name, such as COCO's 0.025 for an eye and 0.107 for a hip. A predicted keypoint
    has a similarity of 0.61 if its distance is twice its sigma times the square root of the object's area. Keypoints
    that are not listed have COCO's sigma or, if COCO does not have them, the mean of COCO's sigmas, 0.067."""
    inference: SemanticInference = SemanticInference()
    """How a semantic head predicts an image: at once or in sliding windows, and at which scales."""
    detection: DetectionInference = DetectionInference()
    """How a detector predicts an image: at which scales, and whether flipped too (test-time augmentation)."""

    @model_validator(mode="after")
    def _check_patience(self) -> "EvaluationConfig":
        if self.patience is not None and not self.every:
            raise ValueError("patience needs regular evaluations, but every=0 evaluates after the last step: set every")
        if self.patience is not None and self.patience_for == "loss" and not self.losses:
            raise ValueError("patience_for='loss' needs losses=True")
        return self


class RunConfig(Config):
    """How a run loads data, saves checkpoints and logs. Affects no result, and may change when the run is resumed."""

    loader: LoaderConfig = LoaderConfig()
    checkpoint_every: int = Field(default=1000, gt=0)
    """Steps between checkpoints; one is also saved before every evaluation."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Number of newest checkpoints to keep, in addition to the best one."""
    log_every: int = Field(default=20, gt=0)
    """Steps between log records."""
    expected_ranges: dict[str, tuple[float, float]] = Field(default={})
    """Expected (low, high) ranges of logged values, such as ``{"loss_mask": (0.2, 0.8)}``; a value outside its range
    gives a warning. Choose wide ranges, from successful runs."""
    expected_from_step: int = Field(default=500, gt=0)
    """Step at which to check ``expected_ranges``: once, at the first log record at or after it."""
    imports: tuple[str, ...] = ()
    """Modules or Python files that define custom parts used in this config; ``--import`` adds more. They are imported
    when a JSON config is trained. Opening a finished run does not import them."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "RunConfig":
        for name, (low, high) in self.expected_ranges.items():
            if low > high:
                raise ValueError(f"expected_ranges: the low end of {name} is above the high end: {low}, {high}")
        return self


def _require_folder_name(name: str) -> str:
    if not name.strip(". ") or any(character in "/\\" or not character.isprintable() for character in name):
        raise ValueError(f"{name!r} cannot be the name of a folder")
    return name


class ExperimentConfig(Config):
    """An experiment: the model, its data, the recipe, the evaluation and the run.

    When a run is resumed, only ``name``, ``evaluation`` and ``run`` may change; the other groups determine the
    trained weights.
    """

    name: Annotated[str, AfterValidator(_require_folder_name)]
    """The name of the run's folder below ``runs``, unless ``--output`` gives another."""
    model: ModelConfig
    train: SplitConfig
    val: SplitConfig
    recipe: RecipeConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _check_validation_split(self) -> "ExperimentConfig":
        if self.val.mix is not None or self.val.sampling != SamplingConfig():
            raise ValueError(
                "val: mix and sampling apply to training only; every validation image is used once: leave them out"
            )
        return self

    @model_validator(mode="after")
    def _check_inference(self) -> "ExperimentConfig":
        task = task_of_head(self.model.head.name)
        if task != "semantic" and self.evaluation.inference != SemanticInference():
            head = "a model with several heads" if isinstance(self.model.head, MultiHeadConfig) else f"a {task} head"
            fix = "set evaluation.detection instead" if task == "detection" else "leave out evaluation.inference"
            raise ValueError(f"{head} cannot predict in windows or at several scales: {fix}")
        if task != "detection" and self.evaluation.detection != DetectionInference():
            raise ValueError(
                f"the model's task is {task}, and evaluation.detection is for detectors: leave out evaluation.detection"
            )
        return self

    def inference(self) -> InferenceConfig:
        """Return the part of the config that prediction needs; evaluations and :class:`Predictor` use it."""
        return InferenceConfig(
            model=self.model,
            preprocessing=as_preprocessing(self.val.transform),
            semantic=self.evaluation.inference,
            detection=self.evaluation.detection,
            # The batch size determines the order of floating-point sums.
            batch_size=1 if self.recipe.deterministic else self.evaluation.batch_size,
            precision="fp32" if self.recipe.precision in ("fp32", "auto") else "tf32",
            deterministic=self.recipe.deterministic,
        )

    def is_logged(self, step: int) -> bool:
        """Return whether a log record is written at ``step``: every ``run.log_every`` steps and at the last step."""
        return step % self.run.log_every == 0 or step == self.recipe.schedule.steps


def parse_config(values: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """Return the experiment config that plain data describe.

    Raises UsageError, which begins with ``source`` and names the invalid or unknown fields.
    """
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise usage_error_from_validation(source, error) from None


def experiment_config(checkpoint: Checkpoint) -> ExperimentConfig:
    """Return the config of the experiment that wrote a checkpoint.

    Raises CheckpointError if the config is invalid, for example because a custom part is not registered.
    """
    try:
        return ExperimentConfig.model_validate(checkpoint.config)
    except ValidationError as error:
        raise checkpoint.config_error(usage_error_from_validation("config", error)) from None
    except UsageError as error:
        raise checkpoint.config_error(error) from None
