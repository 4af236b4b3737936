"""The config of an experiment: everything that a run depends on, as one typed value in five groups."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

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
from ..inference import Checkpoint, InferenceConfig, Precision
from ..models import ModelConfig, SemanticInference
from ..structures import Config, PartConfig, UsageError, usage_error_from_validation
from .optim.optimizers import OptimizerConfig
from .optim.schedule import ScheduleConfig


class SplitConfig(Config):
    """The images of one split, and what happens to them on the way to the model."""

    dataset: Annotated[DatasetConfig, *DATASETS.field()]
    bad_data: Policy = "error"
    """What to do about images and annotations that cannot be used: stop at the first, or skip and count them."""
    transform: Annotated[TransformConfig, *TRANSFORMS.field()] = ResizeConfig()
    mix: Annotated[PartConfig, *MIXES.field()] | None = None
    """How several transformed images become one sample; for training only."""
    sampling: SamplingConfig = SamplingConfig()
    """Which images an epoch shows, and which share a batch; for training only."""

    @model_validator(mode="after")
    def _check_decoded_size(self) -> "SplitConfig":
        require_enough_pixels(self.dataset, self.transform)
        return self


class RecipeConfig(Config):
    """How the weights are trained: every field of this group changes the numbers of a run."""

    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=16, gt=0)
    """Images of one step, over all processes."""
    accumulate: int = Field(default=1, gt=0)
    """Micro-batches into which each process splits its images of a step, to save memory. Losses are then normalized
    within each micro-batch."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    clip_norm: float | None = Field(default=None, gt=0)
    """Total norm to which larger gradients are scaled down; None leaves them as they are."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, such as 0.9998. With it evaluations and loaded models use
    the averaged weights."""
    precision: Precision = "fp32"
    """Arithmetic of a training step; evaluations run in float32, or in ``tf32`` unless this is ``fp32``."""
    channels_last: bool = False
    """Keep feature maps in channels-last memory format, which is faster on a GPU in half precision."""
    compile: bool = False
    """Compile the backbone, the neck and the dense parts of the head with torch.compile. The first steps take minutes,
    and so does the first image of a new shape."""
    deterministic: bool = False
    """Use deterministic kernels only, so that a run gives the same bits each time on a GPU too, and predict image by
    image in evaluations, so that their batch size does not matter. On a CPU training is deterministic in any case."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What each of several processes holds of the weights: all of them (DDP), or a shard (FSDP2), for models that do
    not fit otherwise. Checkpoints are the same."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "RecipeConfig":
        if self.parallel == "fsdp" and (self.precision == "fp16" or self.channels_last or self.compile):
            raise ValueError(
                "parallel='fsdp' goes with precision fp32, tf32 or bf16, without channels_last and compile"
            )
        return self


class EvaluationConfig(Config):
    """How and when a run is evaluated on its validation split; may change when the run is resumed."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0 evaluates after the last step only."""
    batch_size: int = Field(default=1, gt=0)
    """Images that are predicted together. Above 1 an image that is smaller than its batch mates is padded, and its
    predictions change at the borders a little: on the quickstart 0.3 box AP between 1 and 4."""
    losses: bool = False
    """Compute the losses of the validation images too, which reads and runs them once more."""
    patience: int | None = Field(default=None, gt=0)
    """End the run once this many evaluations in a row are no better than the best; None never does."""
    patience_for: Literal["score", "loss"] = "score"
    """What patience waits for: a higher main score, or a lower sum of the validation losses."""
    engine: Engine = "hotcoco"
    """Library that computes COCO's numbers; both give the same digits."""
    boundary: bool = True
    """Compute boundary AP (2103.16562) beside mask AP where masks are scored."""
    inference: SemanticInference = SemanticInference()
    """How a semantic head predicts an image: whole or by windows, at which scales."""

    @model_validator(mode="after")
    def _check_patience(self) -> "EvaluationConfig":
        if self.patience is not None and not self.every:
            raise ValueError("patience counts evaluations, and every=0 has one after the last step only: set every")
        if self.patience is not None and self.patience_for == "loss" and not self.losses:
            raise ValueError("patience_for='loss' needs losses=True")
        return self


class RunConfig(Config):
    """How a run is carried out and reported; changes no number, and may change when the run is resumed."""

    loader: LoaderConfig = LoaderConfig()
    checkpoint_every: int = Field(default=1000, gt=0)
    """Steps between checkpoints; every evaluated step has one too."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """How many of the newest checkpoints stay, beside the best one."""
    log_every: int = Field(default=20, gt=0)
    """Steps between records of the log."""
    expected_ranges: dict[str, tuple[float, float]] = Field(default={})
    """Ranges that logged numbers should be in, such as ``{"loss_mask": (0.2, 0.8)}``: a warning says where one is not.
    State them wide, from runs that went well."""
    expected_from_step: int = Field(default=500, gt=0)
    """The step from which ``expected_ranges`` hold; they are checked once, at the first record from there on."""
    imports: tuple[str, ...] = ()
    """Modules or Python files with parts of your own that this config names; ``--import`` adds to them. They are
    imported when a JSON config is trained; what opens a run imports none of them by itself."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "RunConfig":
        for name, (low, high) in self.expected_ranges.items():
            if low > high:
                raise ValueError(f"expected_ranges: a range goes from low to high; {name} has {low} to {high}")
        return self


class ExperimentConfig(Config):
    """An experiment: the model, its data, the recipe, the evaluation and the run.

    When a run is resumed, ``name``, ``evaluation`` and ``run`` may differ; the other groups decide its numbers.
    """

    name: str
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
                "val: mix and sampling are for training; every validation image is shown once: leave them out"
            )
        return self

    @model_validator(mode="after")
    def _check_inference(self) -> "ExperimentConfig":
        task = task_of_head(self.model.head.name)
        if task != "semantic" and self.evaluation.inference != SemanticInference():
            who = "several heads look" if isinstance(self.model.head, MultiHeadConfig) else f"a head for {task} looks"
            raise ValueError(f"{who} at an image whole and once: leave evaluation.inference as it is")
        return self

    def inference(self) -> InferenceConfig:
        """Return what prediction needs of the experiment: evaluations of a run go by it, and so does a Predictor."""
        return InferenceConfig(
            model=self.model,
            preprocessing=as_preprocessing(self.val.transform),
            semantic=self.evaluation.inference,
            # The size of a batch decides in which order sums are taken.
            batch_size=1 if self.recipe.deterministic else self.evaluation.batch_size,
            precision="fp32" if self.recipe.precision == "fp32" else "tf32",
            deterministic=self.recipe.deterministic,
        )

    def is_logged(self, step: int) -> bool:
        """Return whether the log has a record at ``step``: every ``run.log_every`` steps, and at the last."""
        return step % self.run.log_every == 0 or step == self.recipe.schedule.steps


def parse_config(values: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """Return the experiment that plain data describe; UsageError names a wrong or unknown field."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise usage_error_from_validation(source, error) from None


def experiment_config(checkpoint: Checkpoint) -> ExperimentConfig:
    """Return the experiment that a checkpoint is of; CheckpointError for a part that is not registered."""
    try:
        return ExperimentConfig.model_validate(checkpoint.config)
    except ValidationError as error:
        raise checkpoint.config_error(usage_error_from_validation("config", error)) from None
    except UsageError as error:
        raise checkpoint.config_error(error) from None
