"""Train a model from a config, or fine-tune one on data that are given by their path."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, errors_from_local_rank_zero, run_command
from vertebra.tools.options import (
    bad_data_option,
    complete_config,
    config_argument,
    data_format_option,
    device_option,
    import_option,
    offline_option,
    set_option,
)

if TYPE_CHECKING:
    from vertebra.engine import ExperimentConfig, Recipe

PATH: Any = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    config: str | None
    data: Path | None
    val: Path | None
    images: Path | None
    data_format: str | None
    weights: str | None
    like: str | None
    model: str | None
    dry_run: bool
    assignments: tuple[str, ...]
    output: Path | None
    resume: bool
    device: str
    bad_data: str | None
    imports: tuple[str, ...]
    profile: bool


@click.command(
    "train",
    context_settings=CONTEXT,
    short_help="Train a model from a config, or on your own data.",
    epilog="""\b
    Examples:
      vertebra train quickstart --set recipe.schedule.steps=20
      vertebra train --data mine/train.json --val mine/val.json --weights torchvision/maskrcnn_resnet50_fpn_v2
      vertebra train --data mine/voc --model retinanet_r50_fpn_1x_coco""",
)
@config_argument(required=False)
@click.option(
    "--data",
    type=PATH,
    metavar="PATH",
    help="Instead of CONFIG: a COCO file, a VOC folder or other data to train on, see docs/data.md.",
)
@click.option(
    "--val", type=PATH, metavar="PATH", show_default="as --data lists, or a fifth", help="The validation data."
)
@click.option(
    "--images", type=PATH, metavar="DIR", show_default="beside the COCO file", help="The folder of the images."
)
@data_format_option
@click.option(
    "--weights",
    metavar="MODEL",
    help="The model to start from: a run, a published model (see vertebra list models) or a file of weights.",
)
@click.option("--like", metavar="NAME", help="--weights is a file with the tensor names of this published model.")
@click.option(
    "--model",
    metavar="CONFIG",
    shell_complete=complete_config,
    show_default="Faster R-CNN R50-FPN",
    help="Instead of --weights: the config that has the model.",
)
@click.option("--dry-run", is_flag=True, help="Print and write the recipe for --data, and do not train.")
@set_option
@click.option("--output", type=PATH, metavar="DIR", show_default="runs/NAME", help="The run folder.")
@click.option("--resume", is_flag=True, help="Continue the run in the run folder.")
@offline_option
@device_option
@bad_data_option
@import_option
@click.option("--profile", is_flag=True, help="Write a trace of a few steps to the run folder.")
def command(**values: Any) -> None:
    """Train a model, evaluate it and draw its predictions.

    CONFIG is a config file, or the name of a shipped config (see vertebra list configs). With --data there is no config
    to write: a recipe is chosen from the data, printed with its reasons, and written as a config file. What you --set
    is never changed. Everything is written to the run folder.
    """
    options = Options(**values)
    _check_combination(options)
    from vertebra.engine import train
    from vertebra.inference import import_user_code
    from vertebra.structures import pick_device

    with errors_from_local_rank_zero():
        for name in options.imports:
            import_user_code(name)
        if options.data is None:
            experiment, recipe = _load_experiment(options), None
        else:
            recipe = _make_recipe(options)
            experiment = recipe.config
        output = options.output or Path("runs") / experiment.name
        device = pick_device(options.device)
        if recipe is not None:
            _announce(recipe, output, options)
    if not options.dry_run:
        train(experiment, output, resume=options.resume, device=device, profile=options.profile)


def _check_combination(options: Options) -> None:
    """Raise click's UsageError if options are missing, contradict each other, or would have no effect."""
    if (options.config is None) == (options.data is None):
        raise click.UsageError("give exactly one of CONFIG and --data")
    if options.weights is not None and options.model is not None:
        raise click.UsageError("give --weights or --model, not both: weights come with their model")
    if options.like is not None and options.weights is None:
        raise click.UsageError("--like describes the file --weights: add --weights")
    for name in ("val", "images", "data_format", "weights", "like", "model", "dry_run"):
        if options.data is None and getattr(options, name):
            raise click.UsageError(f"--{name.replace('_', '-')} needs --data")
    if options.dry_run and options.resume:
        raise click.UsageError("--dry-run does not train, so there is nothing to --resume")


def _load_experiment(options: Options) -> "ExperimentConfig":
    """Return the config on the command line with the user's changes."""
    from vertebra.configs import load_config
    from vertebra.engine import override

    assert options.config is not None, "checked by _check_combination"
    experiment = override(load_config(options.config), _assignments(options))
    return experiment.replace(run={"imports": (*experiment.run.imports, *options.imports)})


def _make_recipe(options: Options) -> "Recipe":
    """Return the recipe for the data on the command line."""
    from vertebra.configs import load_config
    from vertebra.engine import RecipeRequest, UserChanges, make_recipe

    assert options.data is not None, "checked by _check_combination"
    model = None if options.model is None else load_config(options.model)
    assignments = _assignments(options)
    if options.imports:
        earlier = () if model is None else model.run.imports
        assignments.append(f"run.imports={json.dumps([*earlier, *options.imports])}")
    changes = UserChanges.from_assignments(assignments)
    return make_recipe(
        RecipeRequest(
            options.data,
            options.val,
            options.images,
            options.data_format,
            options.weights,
            options.like,
            model=model,
            changes=changes,
        )
    )


def _assignments(options: Options) -> list[str]:
    """Return the values of ``--set``, and the assignments that ``--bad-data`` stands for."""
    flags = [] if options.bad_data is None else [f"{split}.bad_data={options.bad_data}" for split in ("train", "val")]
    return [*flags, *options.assignments]


def _announce(recipe: "Recipe", output: Path, options: Options) -> None:
    """Print the recipe and write it to the run folder; on stdout if that is all that is asked for."""
    from rich.console import Console

    from vertebra.engine import announce_recipe

    path = announce_recipe(recipe, output, options.resume, Console() if options.dry_run else None)
    if options.dry_run:
        click.echo(f"nothing was trained; train it with vertebra train {path}")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
