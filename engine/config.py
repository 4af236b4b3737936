"""The config of an experiment: everything that a run depends on, as one typed value in five groups."""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

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
from ..data.transforms import TRANSFORMS
from ..evaluation import Engine
from ..models import ModelConfig, SemanticInference
from ..structures import Config, PartConfig, UsageError, suggest, usage_error_from_validation
from .loop.precision import Precision
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

    def is_logged(self, step: int) -> bool:
        """Return whether the log has a record at ``step``: every ``run.log_every`` steps, and at the last."""
        return step % self.run.log_every == 0 or step == self.recipe.schedule.steps


FREE_ON_RESUME = ("name", "evaluation", "run")
"""Top-level fields of an experiment that may change when its run is resumed."""


def parse_config(values: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """Return the experiment that plain data describe; UsageError names a wrong or unknown field."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise usage_error_from_validation(source, error) from None


def override(config: ExperimentConfig, assignments: Sequence[str]) -> ExperimentConfig:
    """Return the config with ``KEY=VALUE`` assignments applied, as ``--set`` takes them.

    A key is a dotted path to a field (``recipe.optimizer.lr``). In a field that is a dict, the rest of the path is the
    key, and a new one is added (``recipe.optimizer.lr_multipliers.head.mask=0.1``). Setting a part's ``name`` to that
    of another kind of part gives that part with its defaults. A value is JSON or a Python literal where the field takes
    that, and otherwise text; ``~`` at the start of a path is the home folder.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set needs KEY=VALUE, got {assignment!r}", "for example --set recipe.optimizer.lr=0.01")
        _add_change(changes, config, key.strip().split("."), text)
    try:
        return config.replace(**changes)
    except ValidationError as error:
        raise usage_error_from_validation("--set", error) from None


def _add_change(changes: dict[str, Any], node: Config | None, path: Sequence[str], text: str, parent: str = "") -> None:
    """Add one assignment to ``changes``, the nested mapping that :meth:`Config.replace` takes.

    ``node`` is the config that the path starts in, None below a part that an earlier assignment replaces.
    """
    name, rest = path[0], path[1:]
    if node is None:
        _add_unchecked(changes, path, text)
        return
    fields = type(node).model_fields
    if name not in fields:
        raise UsageError(f"--set: there is no field {name!r} in {parent or 'the config'}", suggest(name, fields))
    value = getattr(node, name)
    if not rest:
        changes[name] = _parse_value(text, fields[name])
    elif isinstance(value, Config):
        below = changes.setdefault(name, {})
        is_replaced = below.get("name", getattr(value, "name", None)) != getattr(value, "name", None)
        _add_change(below, None if is_replaced else value, rest, text, f"{parent}.{name}".lstrip("."))
    elif isinstance(value, dict):
        _add_item(changes.setdefault(name, dict(value)), rest, text)
    else:
        raise UsageError(
            f"--set: {name} has no fields, so {'.'.join(rest)} cannot be set in it", "set the field itself"
        )


def _add_item(values: dict[Any, Any], path: Sequence[str], text: str) -> None:
    """Set one item of a dict field: a field of an item that is a config, or the item that the whole path names."""
    item = values.get(path[0])
    if isinstance(item, Config) and len(path) > 1:
        change: dict[str, Any] = {}
        _add_change(change, item, path[1:], text, path[0])
        values[path[0]] = item.replace(**change)
    else:
        values[".".join(path)] = _parse_literal(text)


def _add_unchecked(changes: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Set a field of a part that is built anew, whose config type checks it later."""
    for name in path[:-1]:
        changes = changes.setdefault(name, {})
    changes[path[-1]] = _parse_literal(text)


def _parse_value(text: str, field: FieldInfo) -> Any:
    """Return the value that ``text`` stands for in a config field: a literal if the field takes it, otherwise text."""
    if text.startswith("~") and _takes_path(field.annotation):
        return str(Path(text).expanduser())
    literal = _parse_literal(text)
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    for candidate in (literal, text):
        try:
            adapter.validate_python(candidate)
            return candidate
        except ValidationError:
            continue
    return literal  # the error that it raises in its place names the field


def _parse_literal(text: str) -> Any:
    """Return the JSON value or Python literal that ``text`` spells, or the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _takes_path(annotation: Any) -> bool:
    """Return whether a field's type is Path, or a union or container with it."""
    return annotation is Path or any(_takes_path(part) for part in get_args(annotation))


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the (old, new) values of the fields in which two dumped configs differ, by dotted path."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= config_changes(before, after, f"{prefix}{key}.")
        elif before != after:
            changes[f"{prefix}{key}"] = (before, after)
    return changes
