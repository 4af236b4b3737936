"""Train a model from a config."""

from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, errors_from_local_rank_zero, run_command
from vertebra.tools.options import (
    bad_data_option,
    config_argument,
    device_option,
    import_option,
    offline_option,
    set_option,
)


@click.command(
    "train",
    context_settings=CONTEXT,
    short_help="Train a model from a config.",
    epilog="Example: vertebra train quickstart --set recipe.schedule.steps=20",
)
@config_argument()
@set_option
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", show_default="runs/NAME", help="The run folder."
)
@click.option("--resume", is_flag=True, help="Continue the run in the run folder.")
@offline_option
@device_option
@bad_data_option
@import_option
@click.option("--profile", is_flag=True, help="Write a trace of a few steps to the run folder.")
def command(
    config: str,
    assignments: tuple[str, ...],
    output: Path | None,
    resume: bool,
    device: str,
    bad_data: str | None,
    imports: tuple[str, ...],
    profile: bool,
) -> None:
    """Train a model, evaluate it and draw its predictions.

    CONFIG is a config file, or the name of a shipped config (see vertebra list configs). Everything is written to the
    run folder.
    """
    from vertebra.configs import load_config
    from vertebra.engine import override, train
    from vertebra.inference import import_user_code
    from vertebra.structures import pick_device

    with errors_from_local_rank_zero():
        for name in imports:
            import_user_code(name)
        flags = [] if bad_data is None else [f"train.bad_data={bad_data}", f"val.bad_data={bad_data}"]
        experiment = override(load_config(config), [*flags, *assignments])
        experiment = experiment.replace(run={"imports": (*experiment.run.imports, *imports)})
        chosen_device = pick_device(device)
    output = output or Path("runs") / experiment.name
    train(experiment, output, resume=resume, device=chosen_device, profile=profile)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
