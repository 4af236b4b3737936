"""One experiment: everything a run depends on, as a typed value."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..data import (
    DATASETS,
    MIXES,
    DatasetConfig,
    LoaderConfig,
    ResizeConfig,
    SamplingConfig,
    TransformConfig,
    require_enough_pixels,
)
from ..data.transforms import TRANSFORMS
from ..evaluation import Engine
from ..models import ModelConfig, SemanticInference
from ..structures import Config, PartConfig, UsageError, suggest, usage_error_from_validation
from .loop.precision import Precision
from .optim.optimizers import OptimizerConfig
from .optim.schedule import ScheduleConfig


class SplitConfig(Config):
    """A data set and what happens to its images on the way to the model."""

    dataset: Annotated[DatasetConfig, *DATASETS.field()]
    transform: Annotated[TransformConfig, *TRANSFORMS.field()] = ResizeConfig()
    mix: Annotated[PartConfig, *MIXES.field()] | None = None
    """What puts several transformed images into one; for training only."""

    @model_validator(mode="after")
    def _check_decoding(self) -> "SplitConfig":
        require_enough_pixels(self.dataset, self.transform)
        return self


class ExperimentConfig(Config):
    """A training run. The fields in ``FREE_ON_RESUME`` may change when it is resumed; the others decide its numbers."""

    name: str
    seed: int = Field(default=0, ge=0)
    model: ModelConfig
    start_from: str | None = None
    """A run folder or a checkpoint whose whole model this one starts from, whatever its classes; see
    :func:`vertebra.models.transfer_weights`."""
    train: SplitConfig
    val: SplitConfig
    sampling: SamplingConfig = SamplingConfig()
    """Which images an epoch of the training shows, and which come together."""
    batch_size: int = Field(default=16, gt=0)
    """Images of one step, of all processes together."""
    accumulate: int = Field(default=1, gt=0)
    """Micro-batches that each process makes of its images of a step, to save memory. What a loss is divided by is then
    counted in each of them."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What several processes have of the weights: each all of them, or a share (FSDP2), for models that are too large
    otherwise. Checkpoints are the same."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    precision: Precision = "fp32"
    """Of a training step; evaluations are float32, or ``tf32`` unless this is ``fp32``."""
    channels_last: bool = False
    """Keep feature maps with their channels last, which is faster on a GPU in half precision."""
    compile: bool = False
    """Let torch.compile make one program of the backbone, the neck and the head's dense parts. The first steps take
    minutes, and so does the first image of a new kind of shape."""
    deterministic: bool = False
    """The same bits in every run, on a GPU too, and whatever ``eval_batch_size`` is: an evaluation then predicts image
    by image. On a CPU all else is so in any case."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """With it a moving average of the weights is kept (0.9998, say); evaluations and loaded models have that."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this total norm."""
    eval_batch_size: int = Field(default=1, gt=0)
    """Images that are predicted together. Above 1 the padding of an image that is smaller than others changes what is
    found at its borders a little, as everywhere in the field: on the quickstart 0.3 box AP between 1 and 4."""
    eval_every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0 evaluates at the end only."""
    val_loss: bool = False
    """Whether an evaluation computes the losses of the validation images too, which reads and runs them once more."""
    patience: int | None = Field(default=None, gt=0)
    """With it the run ends once so many evaluations in a row are no better than the best."""
    patience_for: Literal["score", "loss"] = "score"
    """Better is a higher first score, or a lower sum of the validation losses."""
    checkpoint_every: int = Field(default=1000, gt=0)
    """Steps between checkpoints; each step that is evaluated has one too."""
    keep_checkpoints: int = Field(default=2, gt=0)
    log_every: int = Field(default=20, gt=0)
    expect: dict[str, tuple[float, float]] = Field(default={})
    """Bands that logged numbers should be in, such as ``{"loss_mask": (0.2, 0.8)}``: outside there is a warning. State
    them wide, from runs that went well."""
    expected_from_step: int = Field(default=500, gt=0)
    """The step by which they should be."""
    engine: Engine = "hotcoco"
    """What computes COCO's numbers; both give the same."""
    inference: SemanticInference = SemanticInference()
    """How a semantic head looks at an image: whole or by windows, at which scales."""
    loader: LoaderConfig = LoaderConfig()

    @model_validator(mode="after")
    def _check_together(self) -> "ExperimentConfig":
        if self.parallel == "fsdp" and (self.precision == "fp16" or self.channels_last or self.compile):
            raise ValueError(
                "parallel='fsdp' goes with precision fp32, tf32 or bf16, without channels_last and compile"
            )
        if self.start_from is not None and self.model.weights is not None:
            raise ValueError("start_from gives the backbone its weights too: set model.weights to null")
        if self.val.mix is not None:
            raise ValueError("val.mix: images are mixed to train on them, not to evaluate; leave it out")
        if self.patience is not None and not self.eval_every:
            raise ValueError("patience counts evaluations, and eval_every=0 has one at the end only: set eval_every")
        if self.patience is not None and self.patience_for == "loss" and not self.val_loss:
            raise ValueError("patience_for='loss' needs val_loss=True")
        return self

    @model_validator(mode="after")
    def _bands_have_room(self) -> "ExperimentConfig":
        for name, (low, high) in self.expect.items():
            if low > high:
                raise ValueError(f"expect: a band goes from its lower end to its upper one; {name} has {low} to {high}")
        return self

    def is_logged(self, step: int) -> bool:
        """Whether the log writes a record at a step: every ``log_every``, and at the last."""
        return step % self.log_every == 0 or step == self.schedule.steps


FREE_ON_RESUME = {
    "name", "eval_batch_size", "eval_every", "val_loss", "patience", "patience_for", "checkpoint_every",
    "keep_checkpoints", "log_every", "expect", "expected_from_step", "engine", "inference", "loader",
}  # fmt: skip


def parse_config(values: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """A config from plain data; a wrong or unknown field is a ``UsageError`` that names it."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise usage_error_from_validation(source, ExperimentConfig, error) from None


def override(config: ExperimentConfig, assignments: Sequence[str]) -> ExperimentConfig:
    """The config with ``a.b=value`` assignments applied. Values are JSON, or plain text where they are not."""
    values = config.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set needs KEY=VALUE, got {assignment!r}", "for example --set optimizer.lr=0.01")
        *parents, last = path.strip().split(".")
        place: Any = values
        for depth, key in enumerate(parents):
            place = _child(place, key, ".".join(parents[:depth]))
        _child(place, last, ".".join(parents))
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        is_text = isinstance(place[last], str) and isinstance(value, int | float)  # a folder may be called 2017
        place[last] = text if is_text else value
    return parse_config(values, "--set") if assignments else config


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields in which two dumped configs differ, by dotted path."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= config_changes(before, after, f"{prefix}{key}.")
        elif before != after:
            changes[f"{prefix}{key}"] = (before, after)
    return changes


def _child(place: Any, key: str, parent: str) -> Any:
    if not isinstance(place, dict):
        raise UsageError(f"--set {parent}.{key}: {parent} has no fields")
    if key not in place:
        raise UsageError(f"--set: no field {key!r} in {parent or 'the config'}", suggest(key, place))
    return place[key]
