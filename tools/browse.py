"""Write a page of samples as a model sees them in training."""

from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, check_output_file, run_command
from vertebra.tools.options import config_argument, import_option, integer_option, set_option


@click.command(
    "browse",
    context_settings=CONTEXT,
    short_help="Look at the samples that a model is trained on.",
    epilog="""\b
    Example:
      vertebra browse quickstart --augmented --out samples.html""",
)
@config_argument()
@click.option("--augmented", is_flag=True, help="Show the samples of the first training steps, augmented and mixed.")
@click.option("--split", type=click.Choice(("train", "val")), default="train", help="The split to show.")
@integer_option("--count", 24, "The number of samples.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", required=True, help="The HTML file to write.")
@set_option
@import_option
def command(
    config: str,
    augmented: bool,
    split: str,
    count: int,
    out: Path,
    assignments: tuple[str, ...],
    imports: tuple[str, ...],
) -> None:
    """Write a page of samples with their boxes, masks and class maps, as the model sees them.

    With --augmented they are the samples of the first training steps, bit for bit: chosen, cropped, flipped and mixed.
    The page is one file that needs no network.
    """
    if augmented and split == "val":
        raise click.UsageError("validation images are not augmented: leave out --augmented")
    check_output_file(out)
    from vertebra.configs import load_config
    from vertebra.engine import override
    from vertebra.engine.doctor.browse import render_samples
    from vertebra.formats import write_text
    from vertebra.inference import import_user_code

    for name in imports:
        import_user_code(name)
    write_text(out, render_samples(override(load_config(config), assignments), split, count, augmented))
    click.echo(f"{out}: {count} samples of {config}")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
